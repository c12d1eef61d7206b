// The attention kernels against double-precision sums on the host: random odd shapes, unused cache entries and outputs
// poisoned with NaN.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "base/cuda_devices.h"
#include "base/dtype.h"
#include "kernels/decode_attention.h"
#include "kernels/effort.h"
#include "kernels/prefill_attention.h"
#include "kernels/qk_norm_rope_append.h"
#include "kernels/rope_table.h"
#include "kernels/vision_attention.h"
#include "kernels/vision_rope.h"

using namespace qwenbench;
using namespace qwenbench::kernels;

namespace {

void check(cudaError_t error) { REQUIRE_MESSAGE(error == cudaSuccess, cudaGetErrorString(error)); }

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& host) : size_(host.size()) {
    check(cudaMalloc(&data_, std::max<std::size_t>(1, size_) * sizeof(T)));
    check(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  explicit DeviceArray(std::size_t size) : DeviceArray(std::vector<T>(size)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> out(size_);
    check(cudaDeviceSynchronize());
    check(cudaMemcpy(out.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

template <class T>
class PinnedCopy {
 public:
  explicit PinnedCopy(const std::vector<T>& values) {
    check(cudaMallocHost(&data_, values.size() * sizeof(T)));
    std::copy(values.begin(), values.end(), data_);
  }
  ~PinnedCopy() { cudaFreeHost(data_); }
  PinnedCopy(const PinnedCopy&) = delete;
  PinnedCopy& operator=(const PinnedCopy&) = delete;
  const T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

constexpr std::uint16_t kPoison = 0xffff;  // a NaN
constexpr int kDim = kHeadDim;

std::mt19937& rng() {
  static std::mt19937 generator(20250731);
  return generator;
}

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng()); }

template <class T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[pick(0, static_cast<int>(values.size()) - 1)];
}

std::vector<std::uint16_t> random_bf16(std::size_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<std::uint16_t> out(count);
  for (auto& x : out) x = float_to_bf16(normal(rng()));
  return out;
}

bool has_device() { return cuda_device_count() > 0; }

/// Sequences, their cache as stored, and the queries of one step.
struct Case {
  float typical_query;  // times k_scale
  int kv_heads, group, block_size, max_blocks = 0, num_blocks = 0, tokens = 0;
  bool fp8;
  std::vector<int> kv_length, first_row, num_rows, table;
  std::vector<float> k_scale, v_scale;
  std::vector<std::uint8_t> k, v;       // bytes of the cache
  std::vector<float> k_value, v_value;  // what they stand for
  std::vector<std::uint16_t> q;
  std::vector<float> q_scale;  // not empty: FP8 attention
  float prob_scale = 0.00390625f;
  bool round_weights = false;  // in attend()

  /// Turns FP8 attention on. The weights are rounded relative to a running maximum, which only within a kernel's first
  /// tile of tokens is known to be the maximum: beyond it the oracle does not round them.
  void use_codes(int tile) {
    for (const float scale : k_scale) q_scale.push_back(typical_query / scale / 48);
    round_weights = *std::max_element(kv_length.begin(), kv_length.end()) <= tile;
  }
  double tolerance() const;

  int heads() const { return kv_heads * group; }
  std::size_t element() const { return fp8 ? 1 : 2; }

  std::size_t index(int s, int token, int head, int dim) const {
    const int block = table[s * max_blocks + token / block_size];
    return ((static_cast<std::size_t>(block) * kv_heads + head) * block_size + token % block_size) * kDim + dim;
  }
  /// Stores a value, and returns what the stored form stands for.
  float put(std::vector<std::uint8_t>& bytes, std::size_t at, float value, float scale) const {
    if (fp8) {
      bytes[at] = float_to_e4m3(value);
      return e4m3_to_float(bytes[at]) * scale;
    }
    const std::uint16_t bits = float_to_bf16(value);
    bytes[2 * at] = static_cast<std::uint8_t>(bits);
    bytes[2 * at + 1] = static_cast<std::uint8_t>(bits >> 8);
    return bf16_to_float(bits);
  }

  /// lengths[s] tokens of context, of which rows[s] are of this step.
  Case(int of_kv_heads, int of_group, int of_block_size, bool is_fp8, std::vector<int> lengths, std::vector<int> rows,
       float sharpness)
      : typical_query(sharpness),
        kv_heads(of_kv_heads),
        group(of_group),
        block_size(of_block_size),
        fp8(is_fp8),
        kv_length(lengths),
        num_rows(rows) {
    int used = 0;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      first_row.push_back(tokens);
      tokens += rows[s];
      max_blocks = std::max(max_blocks, (lengths[s] + block_size - 1) / block_size + 1);
      used += (lengths[s] + block_size - 1) / block_size;
    }
    num_blocks = used + 3;
    std::vector<int> ids(static_cast<std::size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), rng());
    table.assign(lengths.size() * max_blocks, 0x3fffffff);  // never to be followed
    for (std::size_t s = 0, next = 0; s < lengths.size(); ++s)
      for (int b = 0; b * block_size < lengths[s]; ++b) table[s * max_blocks + b] = ids[next++];
    for (int h = 0; h < kv_heads; ++h) {
      k_scale.push_back(fp8 ? std::ldexp(1.0f + 0.1f * static_cast<float>(h), pick(-6, 3)) : 1.0f);
      v_scale.push_back(fp8 ? std::ldexp(1.0f + 0.1f * static_cast<float>(h), pick(-6, 3)) : 1.0f);
    }
    k.assign(static_cast<std::size_t>(num_blocks) * kv_heads * block_size * kDim * element(), 0xff);  // NaN
    v = k;
    k_value.resize(k.size() / element());
    v_value.resize(v.size() / element());
    std::normal_distribution<float> normal;
    for (std::size_t s = 0; s < lengths.size(); ++s)
      for (int t = 0; t < lengths[s]; ++t)
        for (int h = 0; h < kv_heads; ++h)
          for (int d = 0; d < kDim; ++d) {
            const std::size_t at = index(static_cast<int>(s), t, h, d);
            k_value[at] = put(k, at, normal(rng()), k_scale[h]);
            v_value[at] = put(v, at, normal(rng()), v_scale[h]);
          }
    q = random_bf16(static_cast<std::size_t>(tokens) * heads() * kDim, 1.0f);
    for (int token = 0; token < tokens; ++token)  // scores of about the same size whatever the scale
      for (int h = 0; h < heads(); ++h)
        for (int d = 0; d < kDim; ++d) {
          auto& x = q[(static_cast<std::size_t>(token) * heads() + h) * kDim + d];
          x = float_to_bf16(bf16_to_float(x) * sharpness / k_scale[h / group]);
        }
  }

  /// Output of one query head, whose query is row `row` of q_rows, at a position. A weight that lies so close to the
  /// middle of two codes that fp32 sums decide is a choice: what its other code would add to the output.
  struct Attended {
    std::vector<double> out;
    std::vector<std::vector<double>> choices;
  };
  Attended attend(const std::vector<std::uint16_t>& q_rows, int row, int s, int head, int position) const {
    std::vector<double> score(static_cast<std::size_t>(position) + 1);
    Attended result{std::vector<double>(kDim, 0.0), {}};
    std::vector<double>& out = result.out;
    double query_value[kDim];
    const int kv_head = head / group;
    for (int d = 0; d < kDim; ++d) {
      const float x = bf16_to_float(q_rows[(static_cast<std::size_t>(row) * heads() + head) * kDim + d]);
      query_value[d] = q_scale.empty() ? x : e4m3(x / q_scale[kv_head]) * q_scale[kv_head];
    }
    double top = -1e300, sum = 0;
    for (int t = 0; t <= position; ++t) {
      const std::size_t at = index(s, t, kv_head, 0);
      double dot = 0;
      for (int d = 0; d < kDim; ++d) dot += static_cast<double>(k_value[at + d]) * query_value[d];
      score[t] = dot / std::sqrt(static_cast<double>(kDim));
      top = std::max(top, score[t]);
    }
    for (int t = 0; t <= position; ++t) {
      const double p = std::exp(score[t] - top);
      const std::size_t at = index(s, t, kv_head, 0);
      sum += p;
      const double weight = round_weights ? e4m3(static_cast<float>(p) / prob_scale) * prob_scale : p;
      for (int d = 0; d < kDim; ++d) out[d] += weight * v_value[at + d];
      if (!round_weights) continue;
      const double low = e4m3(static_cast<float>(p * (1 - kScoreError)) / prob_scale) * prob_scale,
                   high = e4m3(static_cast<float>(p * (1 + kScoreError)) / prob_scale) * prob_scale;
      if (low == high) continue;
      std::vector<double>& change = result.choices.emplace_back();
      for (int d = 0; d < kDim; ++d) change.push_back((low + high - 2 * weight) * v_value[at + d]);
    }
    for (double& x : out) x /= sum;
    for (auto& change : result.choices)
      for (double& x : change) x /= sum;
    return result;
  }
  /// Of a weight, relative: what fp32 sums of scores and ex2.approx may be off, assumed, not measured.
  static constexpr double kScoreError = 1e-3;
  static double e4m3(float x) { return e4m3_to_float(float_to_e4m3(x)); }
};

/// A case on the device.
struct Uploaded {
  DeviceArray<std::uint8_t> k, v;
  DeviceArray<float> k_scale, v_scale, q_scale;
  DeviceArray<int> table, kv_length, first_row, num_rows;
  KvLayer cache;
  PagedBatch batch;

  explicit Uploaded(const Case& c)
      : k(c.k),
        v(c.v),
        k_scale(c.k_scale),
        v_scale(c.v_scale),
        q_scale(c.q_scale),
        table(c.table),
        kv_length(c.kv_length),
        first_row(c.first_row),
        num_rows(c.num_rows) {
    cache = {k.get(),       v.get(),      c.fp8 ? KvDtype::kFp8E4M3 : KvDtype::kBFloat16, c.kv_heads, c.block_size,
             k_scale.get(), v_scale.get()};
    batch = {table.get(),     c.max_blocks,   kv_length.get(),
             first_row.get(), num_rows.get(), static_cast<int>(c.kv_length.size())};
  }
};

/// Of a vector, against its own norm, or that of another.
double relative_error(const std::uint16_t* got, const std::vector<double>& want, const std::vector<double>& scale) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = bf16_to_float(got[i]) - want[i];
    difference += d * d;
    norm += scale[i] * scale[i];
  }
  return std::isnan(difference) ? difference : std::sqrt(difference) / std::sqrt(norm);
}
double relative_error(const std::uint16_t* got, const std::vector<double>& want) {
  return relative_error(got, want, want);
}
/// Against the norm of another, without what rounding the result to bf16 may cost at most: half a unit in its last
/// place.
double error_before_rounding(const std::uint16_t* got, const std::vector<double>& want,
                             const std::vector<double>& scale) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double value = bf16_to_float(got[i]);
    const double rounding = value == 0 ? 0 : std::ldexp(1.0, std::ilogb(value) - 8);
    const double d = std::abs(value - want[i]) - rounding;
    if (!(d <= 0)) difference += d * d;  // a NaN stays one
    norm += scale[i] * scale[i];
  }
  return std::isnan(difference) ? difference : std::sqrt(difference) / std::sqrt(norm);
}
/// The least error over the choices: 128 numbers are to be met by a few switches.
double relative_error(const std::uint16_t* got, const Case::Attended& attended) {
  std::vector<double> want = attended.out;
  double error = relative_error(got, want);
  for (const auto& change : attended.choices) {
    std::vector<double> other = want;
    for (std::size_t d = 0; d < want.size(); ++d) other[d] += change[d];
    const double with_it = relative_error(got, other);
    if (with_it < error) error = with_it, want = other;
  }
  return error;
}

constexpr double kTolerance = 8e-3;  // of one head's 128 outputs: bf16 rounding of weights and result

/// Independent roundings of weights to E4M3 are worth 2.6 % (RMS) of an output, whatever the number of tokens.
double Case::tolerance() const { return q_scale.empty() || round_weights ? kTolerance : 6e-2; }

bool untouched(const std::uint16_t* row, int count) {
  return std::all_of(row, row + count, [](std::uint16_t x) { return x == kPoison; });
}

constexpr int kSmallSharedMemory = 99 << 10;  // that a block of sm_86 and sm_89 may take

/// Outputs of two launches over the same workspace, which are equal.
std::vector<std::uint16_t> decode(const Case& c, const Uploaded& device, int max_kv_length, int shared_limit) {
  const DeviceArray<std::uint16_t> q(c.q);
  const std::vector<std::uint16_t> poison(c.q.size(), kPoison);
  const DeviceArray<std::uint16_t> out(poison), again(poison);
  const DeviceArray<std::uint8_t> workspace(
      decode_attention_workspace_bytes(device.batch.num_seqs, c.heads(), c.kv_heads));
  DecodeAttention op = {q.get(), out.get(), c.heads(), device.cache, device.batch, max_kv_length, workspace.get()};
  if (!c.q_scale.empty()) op.q_scale = device.q_scale.get();
  op.prob_scale = c.prob_scale;
  op.shared_limit = shared_limit;
  check(plan_decode_attention(op, nullptr));
  check(decode_attention(op, nullptr));
  op.out = again.get();
  check(decode_attention(op, nullptr));
  const auto got = out.host();
  CHECK(got == again.host());  // a launch leaves the workspace ready, and sums in a fixed order
  return got;
}

/// With what the device has of shared memory, and with what smaller ones have.
void run_decode(const Case& c, int max_kv_length) {
  const Uploaded device(c);
  const std::vector<std::uint16_t> results[] = {decode(c, device, max_kv_length, 0),
                                                decode(c, device, max_kv_length, kSmallSharedMemory)};
  const int width = c.heads() * kDim;
  double worst = 0;
  for (std::size_t s = 0; s < c.kv_length.size(); ++s) {
    const auto row = static_cast<std::size_t>(c.first_row[s]);
    if (c.num_rows[s] != 1 || c.kv_length[s] == 0) {
      for (const auto& got : results) CHECK(untouched(&got[row * width], c.num_rows[s] * width));
      continue;
    }
    for (int h = 0; h < c.heads(); ++h) {
      const auto want = c.attend(c.q, c.first_row[s], static_cast<int>(s), h, c.kv_length[s] - 1);
      for (const auto& got : results) {
        const double error = relative_error(&got[(row * c.heads() + h) * kDim], want);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
  }
  CHECK(worst < c.tolerance());
}

void run_prefill(const Case& c, bool select_rows, int min_rows, int workspace_heads) {
  const Uploaded device(c);
  std::vector<int> row_token;
  std::vector<std::uint16_t> q_rows;
  const int width = c.heads() * kDim;
  for (int token = 0; token < c.tokens; ++token) {
    if (select_rows && pick(0, 3) != 0) continue;
    row_token.push_back(token);
    q_rows.insert(q_rows.end(), c.q.begin() + static_cast<std::ptrdiff_t>(token) * width,
                  c.q.begin() + static_cast<std::ptrdiff_t>(token + 1) * width);
  }
  const DeviceArray<std::uint16_t> q(q_rows);
  const DeviceArray<int> map(row_token);
  const long long total = std::accumulate(c.kv_length.begin(), c.kv_length.end(), 0LL);
  const std::size_t bytes = prefill_attention_workspace_bytes(total, device.batch.num_seqs, c.block_size,
                                                              std::min(workspace_heads, c.kv_heads));
  const DeviceArray<std::uint8_t> workspace(std::vector<std::uint8_t>(bytes, 0xff));
  PrefillAttention op;
  op.q = q.get();
  op.rows = static_cast<int>(row_token.size());
  op.heads = c.heads();
  op.cache = device.cache;
  op.batch = device.batch;
  op.row_token = select_rows ? map.get() : nullptr;
  op.min_rows = min_rows;
  op.max_total_kv = total;
  op.workspace = workspace.get();
  op.workspace_bytes = bytes;
  if (!c.q_scale.empty()) op.q_scale = device.q_scale.get();
  op.prob_scale = c.prob_scale;
  std::vector<std::vector<std::uint16_t>> outputs;  // without and with products of warpgroups
  for (const bool use_wgmma : {false, true}) {
    const DeviceArray<std::uint16_t> out(std::vector<std::uint16_t>(q_rows.size(), kPoison));
    op.out = out.get();
    op.use_wgmma = use_wgmma;
    check(prefill_attention(op, nullptr));
    outputs.push_back(out.host());
  }
  double worst = 0;
  for (std::size_t row = 0; row < row_token.size(); ++row) {
    int s = 0;
    while (row_token[row] >= c.first_row[s] + c.num_rows[s]) ++s;
    if (c.num_rows[s] < min_rows) {
      for (const auto& got : outputs) CHECK(untouched(&got[row * width], width));
      continue;
    }
    const int position = c.kv_length[s] - c.num_rows[s] + row_token[row] - c.first_row[s];
    for (int h = 0; h < c.heads(); ++h) {
      if (pick(0, 3) != 0 && c.kv_length[s] > 100) continue;  // the host is slow
      const auto want = c.attend(q_rows, static_cast<int>(row), s, h, position);
      for (const auto& got : outputs) {
        const double error = relative_error(&got[(row * c.heads() + h) * kDim], want);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
  }
  CHECK(worst < c.tolerance());
}

}  // namespace

#define NEEDS_DEVICE()                  \
  if (!has_device()) {                  \
    MESSAGE("skipped: no CUDA device"); \
    return;                             \
  }

TEST_CASE("cos and sin of M-RoPE are those of the host") {
  NEEDS_DEVICE();
  const int tokens = 333, section[3] = {24, 20, 20};
  std::vector<int> positions;
  for (int i = 0; i < 3 * tokens; ++i) positions.push_back(pick(0, i % 2 == 0 ? 300 : 200000));
  const DeviceArray<int> device_positions(positions);
  const DeviceArray<float> cos(tokens * 64), sin(tokens * 64);
  check(rope_table(device_positions.get(), tokens, section, 5e6, cos.get(), sin.get(), nullptr));
  const auto c = cos.host(), s = sin.host();
  float worst = 0;
  for (int t = 0; t < tokens; ++t)
    for (int j = 0; j < 64; ++j) {
      const int axis = j % 3 == 1 && j < 60 ? 1 : j % 3 == 2 && j < 60 ? 2 : 0;
      const float inverse =
          1.0f / static_cast<float>(std::pow(5e6, static_cast<double>(static_cast<float>(2 * j) / 128.0f)));
      const float angle = static_cast<float>(positions[t * 3 + axis]) * inverse;
      worst = std::max({worst, std::abs(c[t * 64 + j] - std::cos(angle)), std::abs(s[t * 64 + j] - std::sin(angle))});
    }
  CHECK(worst < 3e-7f);
}

TEST_CASE("FP8 codes of every bf16 value are those of the host") {
  NEEDS_DEVICE();
  const int tokens = 512, width = 3 * kDim;
  for (const float scale : {1.0f, 0.3f, 7.77f, 0.0009765625f}) {
    std::vector<std::uint16_t> qkv(static_cast<std::size_t>(tokens) * width, 0x3f80);
    for (int i = 0; i < 65536; ++i) qkv[i / kDim * width + 2 * kDim + i % kDim] = static_cast<std::uint16_t>(i);
    std::vector<std::int64_t> slots(tokens);
    for (int t = 0; t < tokens; ++t) slots[t] = tokens - 1 - t;
    slots[7] = -1;
    const DeviceArray<std::uint16_t> in(qkv), q(tokens * kDim), weight(random_bf16(kDim, 1));
    const DeviceArray<std::uint8_t> k(std::vector<std::uint8_t>(tokens * kDim, 0xaa)),
        v(std::vector<std::uint8_t>(tokens * kDim, 0xaa));
    const DeviceArray<float> angles(tokens * 64), scales(std::vector<float>{scale});
    const DeviceArray<std::int64_t> slot(slots);
    QkNormRopeAppend op = {in.get(),     q.get(),
                           tokens,       1,
                           weight.get(), weight.get(),
                           1e-6f,        angles.get(),
                           angles.get(), {k.get(), v.get(), KvDtype::kFp8E4M3, 1, 16, scales.get(), scales.get()},
                           slot.get()};
    check(qk_norm_rope_append(op, nullptr));
    const auto got = v.host();
    int wrong = 0;
    for (int i = 0; i < 65536; ++i) {
      const int t = i / kDim;
      const std::uint8_t code = got[static_cast<std::size_t>(tokens - 1 - t) * kDim + i % kDim];
      const float value = bf16_to_float(static_cast<std::uint16_t>(i)) / scale;
      const std::uint8_t want = t == 7 ? 0xaa : float_to_e4m3(value);
      wrong += std::isnan(value) && t != 7 ? (code & 0x7f) != 0x7f : code != want;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("QK norm, RoPE and append") {
  NEEDS_DEVICE();
  for (int round = 0; round < test::rounds(12); ++round) {
    const int tokens = one_of({1, 3, 17, 130}), kv_heads = one_of({1, 2, 4}), heads = kv_heads * one_of({1, 2, 5, 8});
    const int block_size = one_of({16, 32, 64}), width = (heads + 2 * kv_heads) * kDim;
    const bool fp8 = round % 2 == 0;
    CAPTURE(tokens);
    CAPTURE(heads);
    const auto qkv = random_bf16(static_cast<std::size_t>(tokens) * width, 3), q_weight = random_bf16(kDim, 1),
               k_weight = random_bf16(kDim, 1);
    std::vector<float> cos, sin, scales;
    for (int i = 0; i < tokens * 64; ++i) {
      const float angle = static_cast<float>(pick(0, 1000)) * 0.01f;
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
    for (int h = 0; h < kv_heads; ++h) scales.push_back(0.01f * static_cast<float>(h + 1));
    const int blocks = (tokens + block_size - 1) / block_size + 2;
    std::vector<std::int64_t> slots(static_cast<std::size_t>(blocks) * block_size);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), rng());
    slots.resize(tokens);
    const std::size_t cache_bytes = static_cast<std::size_t>(blocks) * kv_heads * block_size * kDim * (fp8 ? 1 : 2);
    const DeviceArray<std::uint16_t> in(qkv), qw(q_weight), kw(k_weight),
        q(std::vector<std::uint16_t>(static_cast<std::size_t>(tokens) * heads * kDim, kPoison)),
        k_out(std::vector<std::uint16_t>(static_cast<std::size_t>(tokens) * kv_heads * kDim, kPoison));
    const DeviceArray<std::uint8_t> k(std::vector<std::uint8_t>(cache_bytes, 0xff)),
        v(std::vector<std::uint8_t>(cache_bytes, 0xff));
    const DeviceArray<float> device_cos(cos), device_sin(sin), scale(scales);
    const DeviceArray<std::int64_t> slot(slots);
    QkNormRopeAppend op = {in.get(),
                           q.get(),
                           tokens,
                           heads,
                           qw.get(),
                           kw.get(),
                           1e-6f,
                           device_cos.get(),
                           device_sin.get(),
                           {k.get(), v.get(), fp8 ? KvDtype::kFp8E4M3 : KvDtype::kBFloat16, kv_heads, block_size,
                            scale.get(), scale.get()},
                           slot.get()};
    op.k_out = k_out.get();
    check(qk_norm_rope_append(op, nullptr));
    const auto got_q = q.host(), got_k_out = k_out.host();
    const auto got_k = k.host(), got_v = v.host();
    double worst = 0;
    int wrong = 0;
    for (int t = 0; t < tokens; ++t)
      for (int h = 0; h < heads + kv_heads; ++h) {
        const std::uint16_t* x = &qkv[static_cast<std::size_t>(t) * width + static_cast<std::size_t>(h) * kDim];
        const auto& weight = h < heads ? q_weight : k_weight;
        double squares = 0;
        for (int d = 0; d < kDim; ++d) squares += std::pow(bf16_to_float(x[d]), 2);
        const double factor = 1 / std::sqrt(squares / kDim + 1e-6);
        std::vector<double> want(kDim);
        for (int d = 0; d < 64; ++d) {
          const double a = bf16_to_float(x[d]) * factor * bf16_to_float(weight[d]),
                       b = bf16_to_float(x[d + 64]) * factor * bf16_to_float(weight[d + 64]);
          want[d] = a * cos[t * 64 + d] - b * sin[t * 64 + d];
          want[d + 64] = b * cos[t * 64 + d] + a * sin[t * 64 + d];
        }
        const std::uint16_t* got = h < heads ? &got_q[(static_cast<std::size_t>(t) * heads + h) * kDim]
                                             : &got_k_out[(static_cast<std::size_t>(t) * kv_heads + h - heads) * kDim];
        const double error = relative_error(got, want);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    for (int t = 0; t < tokens; ++t)
      for (int h = 0; h < kv_heads; ++h)
        for (int d = 0; d < kDim; ++d) {
          const std::size_t at =
              ((slots[t] / block_size * kv_heads + h) * block_size + slots[t] % block_size) * kDim + d;
          const std::uint16_t key = got_k_out[(static_cast<std::size_t>(t) * kv_heads + h) * kDim + d];
          const std::uint16_t value = qkv[static_cast<std::size_t>(t) * width + (heads + kv_heads + h) * kDim + d];
          if (fp8) {
            wrong += got_k[at] != float_to_e4m3(bf16_to_float(key) / scales[h]);
            wrong += got_v[at] != float_to_e4m3(bf16_to_float(value) / scales[h]);
          } else {
            wrong += (got_k[2 * at] | got_k[2 * at + 1] << 8) != key;
            wrong += (got_v[2 * at] | got_v[2 * at + 1] << 8) != value;
          }
        }
    CHECK(worst < 3e-3);
    CHECK(wrong == 0);
  }
}

TEST_CASE("decode attention, random shapes") {
  NEEDS_DEVICE();
  for (int round = 0; round < test::rounds(60); ++round) {
    const int seqs = one_of({1, 2, 3, 7, 16, 40}), group = one_of({1, 2, 4, 5, 8, 12, 16}),
              kv_heads = one_of({1, 2, 4, 8});
    const int block_size = one_of({16, 32, 64});
    std::vector<int> lengths, rows;
    int longest = 0;
    for (int s = 0; s < seqs; ++s) {
      const int limit = seqs > 7 ? 150 : one_of({1, 16, 17, 300, 1500});
      lengths.push_back(pick(0, 9) == 0 ? 0 : pick(1, limit));
      rows.push_back(lengths.back() > 2 && pick(0, 9) == 0 ? 2 : 1);
      longest = std::max(longest, lengths.back());
    }
    CAPTURE(round);
    CAPTURE(seqs);
    CAPTURE(group);
    CAPTURE(kv_heads);
    CAPTURE(block_size);
    run_decode(Case(kv_heads, group, block_size, round % 3 != 0, lengths, rows, one_of({0.1f, 1.0f, 6.0f})),
               longest + pick(0, 1) * 3000);
  }
}

TEST_CASE("decode attention over a long context is split among thread blocks") {
  NEEDS_DEVICE();
  for (const bool fp8 : {true, false}) run_decode(Case(1, 8, 16, fp8, {40000}, {1}, 1.0f), 40000);
  run_decode(Case(2, 8, 32, true, {20000, 5, 0, 777}, {1, 1, 1, 1}, 3.0f), 20000);
}

TEST_CASE("decode attention that turns and stores the projected rows itself equals both kernels bit for bit") {
  NEEDS_DEVICE();
  for (int round = 0; round < test::rounds(24); ++round) {
    const int seqs = one_of({1, 2, 5, 16, 40}), group = one_of({1, 2, 5, 8, 12, 16}), kv_heads = one_of({1, 2, 4});
    std::vector<int> lengths, rows;
    int longest = 0;
    for (int s = 0; s < seqs; ++s) {
      lengths.push_back(pick(0, 9) == 0 ? 0 : pick(1, one_of({1, 17, 300, 2000})));
      rows.push_back(1);
      longest = std::max(longest, lengths.back());
    }
    CAPTURE(round);
    CAPTURE(group);
    CAPTURE(kv_heads);
    Case c(kv_heads, group, one_of({16, 64}), round % 3 != 0, lengths, rows, 1.0f);
    if (round % 3 == 1) c.use_codes(16);
    const int heads = c.heads(), width = (heads + 2 * kv_heads) * kDim;
    std::vector<std::int64_t> slots;
    for (int s = 0; s < seqs; ++s) {
      const int last = lengths[s] - 1;
      slots.push_back(last < 0 ? -1
                               : std::int64_t{c.table[s * c.max_blocks + last / c.block_size]} * c.block_size +
                                     last % c.block_size);
    }
    std::vector<std::uint16_t> projected = random_bf16(static_cast<std::size_t>(seqs) * width, 2);
    for (std::uint16_t& v : projected) v = v == 0 ? 1 : v;  // as decode_chain() writes them: no word is 0
    // Page-locked: the copy below then needs no multiprocessor, all of which may be full of what waits for it.
    const PinnedCopy<std::uint16_t> in_host_memory(projected);
    const DeviceArray<std::uint16_t> qkv(projected), q_weight(random_bf16(kDim, 1)), k_weight(random_bf16(kDim, 1)),
        q(static_cast<std::size_t>(seqs) * heads * kDim);
    std::vector<float> cos, sin;
    for (int i = 0; i < seqs * kDim / 2; ++i) {
      const float angle = static_cast<float>(pick(0, 1000)) * 0.01f;
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
    const DeviceArray<float> device_cos(cos), device_sin(sin);
    const DeviceArray<std::int64_t> slot(slots);
    std::vector<std::uint16_t> outputs[3];
    std::vector<std::uint8_t> keys[3], values[3];
    for (const int mode : {0, 1, 2}) {  // two kernels; one; one that begins before the rows are there
      const bool as_one = mode > 0, early = mode == 2;
      const DeviceArray<std::uint16_t> late(projected.size());
      const Uploaded device(c);
      const DeviceArray<std::uint16_t> out(
          std::vector<std::uint16_t>(static_cast<std::size_t>(seqs) * heads * kDim, 7));
      const DeviceArray<std::uint8_t> workspace(decode_attention_workspace_bytes(seqs, heads, kv_heads));
      const QkNormRopeAppend append = {qkv.get(),        q.get(),        seqs,      heads,
                                       q_weight.get(),   k_weight.get(), 1e-6f,     device_cos.get(),
                                       device_sin.get(), device.cache,   slot.get()};
      DecodeAttention op = {q.get(), out.get(), heads, device.cache, device.batch, longest, workspace.get()};
      if (!c.q_scale.empty()) op.q_scale = device.q_scale.get();
      op.prob_scale = c.prob_scale;
      op.shared_limit = round % 2 == 0 ? 0 : kSmallSharedMemory;
      op.out_factor = early ? 0x1p64f : 1.0f;
      check(plan_decode_attention(op, nullptr));
      if (as_one)
        op.raw = append, op.q = nullptr;
      else
        check(qk_norm_rope_append(append, nullptr));
      if (early) {
        op.raw.qkv = late.get();
        op.raw_is_announced = true;
        cudaStream_t one, other;
        check(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
        check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        check(cudaDeviceSynchronize());
        check(decode_attention(op, one));
        check(cudaMemcpyAsync(late.get(), in_host_memory.get(), projected.size() * 2, cudaMemcpyHostToDevice, other));
        check(cudaDeviceSynchronize());
        cudaStreamDestroy(one);
        cudaStreamDestroy(other);
      } else {
        check(decode_attention(op, nullptr));
      }
      outputs[mode] = out.host();
      keys[mode] = device.k.host();
      values[mode] = device.v.host();
    }
    CHECK(outputs[0] == outputs[1]);
    for (const int mode : {1, 2}) {
      CHECK(keys[0] == keys[mode]);
      CHECK(values[0] == values[mode]);
    }
    // The factor multiplies what is written, and nothing else is.
    const auto times_factor = [](std::uint16_t v) {
      return static_cast<std::uint16_t>((v & 0x7f80) == 0 ? v : v + (64 << 7));
    };
    std::size_t different = 0;
    for (int s = 0; s < seqs; ++s)
      for (int i = s * heads * kDim; i < (s + 1) * heads * kDim; ++i)
        different += outputs[2][i] != (lengths[s] == 0 ? outputs[0][i] : times_factor(outputs[0][i]));
    CHECK(different == 0);
    if (longest > 0) CHECK(keys[0] != c.k);
  }
}

TEST_CASE("prefill attention, random shapes") {
  NEEDS_DEVICE();
  for (int round = 0; round < test::rounds(60); ++round) {
    const int seqs = one_of({1, 2, 3, 35}), group = one_of({1, 2, 4, 5, 8}), kv_heads = one_of({1, 2, 3});
    const int block_size = one_of({16, 32, 64});
    std::vector<int> lengths, rows;
    for (int s = 0; s < seqs; ++s) {
      lengths.push_back(pick(1, seqs > 3 ? 60 : one_of({1, 64, 129, 400, 700})));
      rows.push_back(pick(0, 3) == 0 ? 1 : pick(1, std::min(lengths.back(), 200)));
    }
    CAPTURE(round);
    CAPTURE(seqs);
    CAPTURE(group);
    CAPTURE(kv_heads);
    CAPTURE(block_size);
    run_prefill(Case(kv_heads, group, block_size, round % 3 != 0, lengths, rows, one_of({0.1f, 1.0f, 6.0f})),
                round % 4 == 0, round % 5 == 0 ? 2 : 1, pick(1, 3));
  }
}

TEST_CASE("prefill attention over many tiles") {
  NEEDS_DEVICE();
  if (test::is_too_large(2500 * 1100)) return;
  for (const bool fp8 : {true, false}) {
    run_prefill(Case(2, 8, 16, fp8, {2500}, {1100}, 3.0f), false, 1, 2);
    run_prefill(Case(1, 16, 128, fp8, {700, 128, 129}, {300, 128, 129}, 1.0f), false, 1, 1);
    run_prefill(Case(3, 1, 256, fp8, {1000, 513}, {1000, 2}, 6.0f), true, 1, 3);
    run_prefill(Case(2, 3, 32, fp8, {260}, {260}, 40.0f), false, 1, 1);  // weights of one token alone
  }
}

TEST_CASE("FP8 attention rounds queries and weights to E4M3") {
  NEEDS_DEVICE();
  for (int round = 0; round < test::rounds(40); ++round) {
    const bool prefill = round % 2 == 1, first_tile = round % 4 < 2;
    const int tile = prefill ? 64 : 16, seqs = one_of({1, 2, 5}), group = one_of({1, 5, 8, 12}),
              kv_heads = one_of({1, 2});
    std::vector<int> lengths, rows;
    for (int s = 0; s < seqs; ++s) {
      lengths.push_back(pick(1, first_tile ? tile : 600));
      rows.push_back(prefill ? pick(1, std::min(lengths.back(), 40)) : 1);
    }
    CAPTURE(round);
    CAPTURE(group);
    Case c(kv_heads, group, one_of({16, 64}), true, lengths, rows, one_of({0.1f, 1.0f, 4.0f}));
    c.prob_scale = one_of({0.00390625f, 0.0625f});
    c.use_codes(tile);
    if (prefill)
      run_prefill(c, false, 1, kv_heads);
    else
      run_decode(c, 600);
  }
}

TEST_CASE("vision RoPE and attention") {
  NEEDS_DEVICE();
  for (const int dim : {64, 72, 8, 40, 80, 128}) {
    for (const int patches : {1, 4, 63, 64, 128, 200, 516}) {
      if (test::is_too_large(patches * patches)) continue;
      const int heads = one_of({1, 3}), width = 3 * heads * dim;
      CAPTURE(dim);
      CAPTURE(patches);
      auto qkv = random_bf16(static_cast<std::size_t>(patches) * width, 1.5f);
      std::vector<float> cos, sin;
      for (int i = 0; i < patches * dim / 2; ++i) {
        const float angle = static_cast<float>(pick(0, 1000)) * 0.01f;
        cos.push_back(std::cos(angle));
        sin.push_back(std::sin(angle));
      }
      const DeviceArray<std::uint16_t> device_qkv(qkv);
      const DeviceArray<float> device_cos(cos), device_sin(sin);
      check(vision_rope(device_qkv.get(), device_cos.get(), device_sin.get(), patches, heads, dim, nullptr));
      const auto turned = device_qkv.host();
      double worst = 0;
      for (int p = 0; p < patches; ++p)
        for (int h = 0; h < 3 * heads; ++h) {
          const std::size_t at = static_cast<std::size_t>(p) * width + static_cast<std::size_t>(h) * dim;
          for (int d = 0; d < dim / 2; ++d) {
            const double a = bf16_to_float(qkv[at + d]), b = bf16_to_float(qkv[at + d + dim / 2]);
            const double c = h < 2 * heads ? cos[p * dim / 2 + d] : 1, s = h < 2 * heads ? sin[p * dim / 2 + d] : 0;
            const double scale = std::abs(a) + std::abs(b) + 1e-6;
            worst = std::max({worst, std::abs(bf16_to_float(turned[at + d]) - (a * c - b * s)) / scale,
                              std::abs(bf16_to_float(turned[at + d + dim / 2]) - (b * c + a * s)) / scale});
          }
        }
      CHECK(worst < 1.0 / 256);

      std::vector<std::vector<std::uint16_t>> outputs;  // without and with products of warpgroups
      for (const bool use_wgmma : {false, true}) {
        const DeviceArray<std::uint16_t> out(
            std::vector<std::uint16_t>(static_cast<std::size_t>(patches) * heads * dim, kPoison));
        check(vision_attention(device_qkv.get(), out.get(), patches, heads, dim, nullptr, use_wgmma));
        outputs.push_back(out.host());
      }
      worst = 0;
      for (int p = 0; p < patches; ++p)
        for (int h = 0; h < heads; ++h) {
          const auto row = [&](int patch, int which) {
            return &turned[static_cast<std::size_t>(patch) * width + static_cast<std::size_t>(which * heads + h) * dim];
          };
          std::vector<double> score(patches), want(dim, 0.0), magnitude(dim, 0.0);  // sums of p v and p |v|
          double top = -1e300, sum = 0;
          for (int t = 0; t < patches; ++t) {
            double dot = 0;
            for (int d = 0; d < dim; ++d)
              dot += static_cast<double>(bf16_to_float(row(p, 0)[d])) * bf16_to_float(row(t, 1)[d]);
            score[t] = dot / std::sqrt(static_cast<double>(dim));
            top = std::max(top, score[t]);
          }
          for (int t = 0; t < patches; ++t) {
            const double weight = std::exp(score[t] - top);
            sum += weight;
            for (int d = 0; d < dim; ++d) {
              want[d] += weight * bf16_to_float(row(t, 2)[d]);
              magnitude[d] += weight * std::abs(bf16_to_float(row(t, 2)[d]));
            }
          }
          for (double& x : want) x /= sum;
          for (double& x : magnitude) x /= sum;
          for (const auto& got : outputs) {
            const double error =
                error_before_rounding(&got[(static_cast<std::size_t>(p) * heads + h) * dim], want, magnitude);
            worst = std::isnan(error) ? INFINITY : std::max(worst, error);
          }
        }
      CHECK(worst < 1.0 / 256);  // each weight is rounded to bf16
    }
  }
}

TEST_CASE("decode attention over sequences of one length, and over more of them than a block's plan has room for") {
  NEEDS_DEVICE();
  const auto run = [](int seqs, int kv_heads, int longest, bool equal) {
    std::vector<int> lengths;
    for (int s = 0; s < seqs; ++s) lengths.push_back(equal ? longest : pick(1, longest));
    CAPTURE(seqs);
    CAPTURE(kv_heads);
    run_decode(Case(kv_heads, 2, 16, true, lengths, std::vector<int>(lengths.size(), 1), 1.0f), longest);
  };
  run(16, 8, 1024, true);  // a block an item
  run(16, 4, 1000, true);  // two blocks could share one, and do not
  run(5, 8, 2500, true);   // they do
  run(700, 8, 40, false);  // 42 items a block
}
