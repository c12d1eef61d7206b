#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kv_cache.h"
#include "base/aligned.h"
#include "base/dtype.h"
#include "isa_list.h"

using namespace qwenbench;
using namespace qwenbench::backend;
using namespace qwenbench::backend::cpu;

namespace {

constexpr int kHeadDim = 128;

graph::Plan small_plan() {
  graph::Plan plan;
  plan.config.text.num_layers = 2;
  plan.config.text.num_kv_heads = 2;
  plan.config.text.head_dim = kHeadDim;
  plan.local_kv_heads = 2;
  return plan;
}

/// Random K and V of one sequence, appended to a cache through a shuffled block table.
struct Sequence {
  int length;
  std::vector<float> k, v, q;  // [length, kHeadDim]
  std::vector<std::int32_t> blocks;

  Sequence(int length_, int block_size, std::mt19937& rng) : length(length_) {
    std::normal_distribution<float> normal;
    for (auto* x : {&k, &v, &q}) {
      x->resize(static_cast<std::size_t>(length) * kHeadDim);
      for (auto& value : *x) value = normal(rng);
    }
    for (int i = 0; i < (length + block_size - 1) / block_size; ++i) blocks.push_back(i);
    std::shuffle(blocks.begin(), blocks.end(), rng);
  }

  void append_to(CpuKvCache& cache, const Kernels& kernels) const {
    for (int t = 0; t < length; ++t) {
      const std::int64_t slot =
          std::int64_t{blocks[t / cache.block_size()]} * cache.block_size() + t % cache.block_size();
      cache.append(kernels, 1, 1, slot, k.data() + t * kHeadDim, v.data() + t * kHeadDim);
    }
  }
};

std::vector<float> attend(const Kernels& kernels, const CpuKvCache& cache, const Sequence& s, int begin, int end) {
  std::vector<float> out(static_cast<std::size_t>(end - begin) * kHeadDim, std::numeric_limits<float>::quiet_NaN());
  AlignedVector<float> scratch(static_cast<std::size_t>(attention_scratch_floats(kHeadDim)),
                               std::numeric_limits<float>::quiet_NaN());
  std::vector<const float*> q_rows;
  std::vector<float*> out_rows;
  std::vector<int> last_key;
  for (int t = begin; t < end; ++t) {
    q_rows.push_back(s.q.data() + t * kHeadDim);
    out_rows.push_back(out.data() + (t - begin) * kHeadDim);
    last_key.push_back(t);
  }
  AttentionArgs args;
  cache.describe(1, 1, args);
  args.blocks = s.blocks.data();
  args.kv_length = end;
  args.rows = end - begin;
  args.q_rows = q_rows.data(), args.out_rows = out_rows.data(), args.last_key = last_key.data();
  args.scratch = scratch.data();
  kernels.attention(args);
  return out;
}

float as_stored(float x, profile::KvCacheDtype dtype, float scale) {
  if (dtype == profile::KvCacheDtype::kFloat32) return x;
  if (dtype == profile::KvCacheDtype::kBFloat16) return round_to_bf16(x);
  return e4m3_to_float(float_to_e4m3(round_to_bf16(x) / scale)) * scale;
}

KvCacheOptions cache_options(profile::KvCacheDtype dtype, int block_size) {
  KvCacheOptions options;
  options.dtype = dtype;
  options.num_blocks = 12;
  options.block_size = block_size;
  if (dtype == profile::KvCacheDtype::kFp8E4M3)
    options.scales = {{{1.0f}, {1.0f}, {}, {}}, {{0.5f, 0.017f}, {0.3f, 0.009f}, {}, {}}};
  return options;
}

const profile::KvCacheDtype kDtypes[] = {profile::KvCacheDtype::kFloat32, profile::KvCacheDtype::kBFloat16,
                                         profile::KvCacheDtype::kFp8E4M3};

}  // namespace

TEST_CASE("attention: what the cache stores, weighted in double precision") {
  std::mt19937 rng(3);
  for (const auto dtype : kDtypes) {
    for (const int length : {1, 15, 16, 17, 150}) {
      const Sequence s(length, 32, rng);
      for (const Kernels* kernels : runnable_kernels()) {
        CpuKvCache cache(small_plan(), 0, cache_options(dtype, 32));
        s.append_to(cache, *kernels);
        const int begin = std::max(0, length - kQueryBlock);
        const std::vector<float> out = attend(*kernels, cache, s, begin, length);
        for (int t = begin; t < length; ++t) {
          std::vector<double> p(static_cast<std::size_t>(t) + 1);
          double best = -1e30, total = 0;
          for (int j = 0; j <= t; ++j) {
            double dot = 0;
            for (int i = 0; i < kHeadDim; ++i)
              dot += double{s.q[t * kHeadDim + i]} * as_stored(s.k[j * kHeadDim + i], dtype, 0.017f);
            p[j] = dot / std::sqrt(double{kHeadDim});
            best = std::max(best, p[j]);
          }
          for (auto& x : p) total += (x = std::exp(x - best));
          for (int i = 0; i < kHeadDim; ++i) {
            double sum = 0;
            for (int j = 0; j <= t; ++j) sum += p[j] / total * as_stored(s.v[j * kHeadDim + i], dtype, 0.009f);
            const double error = std::fabs(out[(t - begin) * kHeadDim + i] - sum);
            if (!(error < 3e-5))
              FAIL_CHECK(kernels->name << " dtype " << static_cast<int>(dtype) << " token " << t << " error " << error);
          }
        }
      }
    }
  }
}

namespace {

constexpr float kQScale = 0.013f, kKScale = 0.017f, kVScale = 0.009f;

KvCacheOptions fp8_attention_options(float prob_scale) {
  KvCacheOptions options = cache_options(profile::KvCacheDtype::kFp8E4M3, 32);
  options.fp8_attention = true;
  options.scales[1].q = std::vector<float>{1.0f, kQScale};
  options.scales[1].prob = prob_scale;
  return options;
}

float e4m3_of(double x) { return e4m3_to_float(float_to_e4m3(static_cast<float>(x))); }

/// Attention in FP8 by its definition, in double: 16 keys at a time, weights rounded against the running maximum.
std::vector<double> fp8_attention(const Sequence& s, int token, double prob_scale) {
  std::vector<double> out(kHeadDim, 0.0);
  double best = -1e300, total = 0;
  for (int first = 0; first <= token; first += kTokenTile) {
    const int last = std::min(first + kTokenTile - 1, token);
    std::vector<double> score;
    for (int j = first; j <= last; ++j) {
      double dot = 0;
      for (int i = 0; i < kHeadDim; ++i) {
        dot += double{e4m3_of(round_to_bf16(s.q[token * kHeadDim + i]) / kQScale)} *
               e4m3_of(round_to_bf16(s.k[j * kHeadDim + i]) / kKScale);
      }
      score.push_back(dot * kQScale * kKScale / std::sqrt(double{kHeadDim}));
    }
    const double now = std::max(best, *std::max_element(score.begin(), score.end()));
    for (double& x : out) x *= std::exp(best - now);
    total *= std::exp(best - now);
    best = now;
    for (int j = first; j <= last; ++j) {
      const double p = std::exp(score[static_cast<std::size_t>(j - first)] - best);
      total += p;
      for (int i = 0; i < kHeadDim; ++i) {
        out[static_cast<std::size_t>(i)] +=
            double{e4m3_of(p / prob_scale)} * e4m3_of(round_to_bf16(s.v[j * kHeadDim + i]) / kVScale);
      }
    }
  }
  for (double& x : out) x *= prob_scale * kVScale / total;
  return out;
}

}  // namespace

TEST_CASE("attention in FP8: by its definition; prob_scale 1 is much worse than 2^-8") {
  std::mt19937 rng(21);
  const Sequence s(120, 32, rng);
  for (const Kernels* kernels : runnable_kernels()) {
    double flushed = 0;
    for (const float prob_scale : {0x1p-8f, 1.0f}) {
      CpuKvCache cache(small_plan(), 0, fp8_attention_options(prob_scale));
      s.append_to(cache, *kernels);
      Sequence rounded = s;
      for (float& q : rounded.q) q = e4m3_of(round_to_bf16(q) / kQScale);
      for (const auto& [begin, end] : {std::pair(72, 120), {119, 120}, {116, 120}}) {
        const std::vector<float> out = attend(*kernels, cache, rounded, begin, end);
        for (int t = begin; t < end; ++t) {
          const std::vector<double> expected = fp8_attention(s, t, prob_scale);
          const std::vector<double> fine = fp8_attention(s, t, 0x1p-8);
          for (int i = 0; i < kHeadDim; ++i) {
            const double error = std::fabs(out[(t - begin) * kHeadDim + i] - expected[i]);
            if (!(error < 3e-5)) FAIL_CHECK(kernels->name << " token " << t << " error " << error);
            flushed = std::max(flushed, std::fabs(expected[i] - fine[i]));
          }
        }
      }
    }
    CHECK(flushed > 1e-3);
  }
}

TEST_CASE("attention: bits depend on neither chunk, block size, instruction set nor what lies beyond the end") {
  std::mt19937 rng(5);
  const int length = 41;
  for (const auto dtype : kDtypes) {
    Sequence s(length, 16, rng);
    CpuKvCache first(small_plan(), 0, cache_options(dtype, 16));
    s.append_to(first, kernels());
    const std::vector<float> whole = attend(kernels(), first, s, 0, length);
    for (const Kernels* kernels : runnable_kernels()) {
      for (const int chunk : {1, 7, 16, 41}) {
        Sequence moved = s;
        moved.blocks = {2, 0};
        CpuKvCache cache(small_plan(), 0, cache_options(dtype, 32));
        const std::vector<float> nan(kHeadDim, std::numeric_limits<float>::quiet_NaN());
        for (std::int64_t slot = 0; slot < 96; ++slot) cache.append(*kernels, 1, 1, slot, nan.data(), nan.data());
        moved.append_to(cache, *kernels);
        for (int begin = 0; begin < length; begin += chunk) {
          const int end = std::min(begin + chunk, length);
          const std::vector<float> part = attend(*kernels, cache, moved, begin, end);
          CHECK(std::memcmp(part.data(), whole.data() + begin * kHeadDim, part.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST_CASE("kv cache: stored codes are those of base/dtype.h") {
  std::mt19937 rng(9);
  std::normal_distribution<float> normal;
  for (const Kernels* kernels : runnable_kernels()) {
    CpuKvCache fp8(small_plan(), 0, cache_options(profile::KvCacheDtype::kFp8E4M3, 32));
    CpuKvCache bf16(small_plan(), 0, cache_options(profile::KvCacheDtype::kBFloat16, 32));
    for (std::int64_t slot = 0; slot < 64; ++slot) {
      std::vector<float> k(kHeadDim), v(kHeadDim);
      for (auto* x : {&k, &v})
        for (auto& value : *x) value = std::ldexp(normal(rng), static_cast<int>(rng() % 40) - 24);
      k[0] = std::numeric_limits<float>::infinity(), k[1] = -0.0f, k[2] = std::numeric_limits<float>::quiet_NaN();
      fp8.append(*kernels, 1, 1, slot, k.data(), v.data());
      bf16.append(*kernels, 1, 1, slot, k.data(), v.data());
      const auto k8 = fp8.stored(1, slot, 1, true), v8 = fp8.stored(1, slot, 1, false),
                 k16 = bf16.stored(1, slot, 1, true);
      for (int i = 0; i < kHeadDim; ++i) {
        CHECK(static_cast<std::uint8_t>(k8[i]) == float_to_e4m3(round_to_bf16(k[i]) / 0.017f));
        CHECK(static_cast<std::uint8_t>(v8[i]) == float_to_e4m3(round_to_bf16(v[i]) / 0.009f));
        std::uint16_t bits;
        std::memcpy(&bits, k16.data() + 2 * i, 2);
        CHECK(bits == float_to_bf16(k[i]));
      }
    }
  }
}
