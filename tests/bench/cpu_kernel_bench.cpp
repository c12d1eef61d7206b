// The CPU kernels of a decode step, one thread, at the sizes of the embedded model: GFLOP/s and share of the
// multiply-add ceiling, the fastest of many short runs.
//   cpu_kernel_bench [ROWS ...]      (default: 1 4 8 16 48)
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/aligned.h"
#include "base/dtype.h"
#include "fma_ceiling.h"

using namespace qwenbench;
using namespace qwenbench::backend::cpu;

namespace {

using Clock = std::chrono::steady_clock;
using Form = PackedMatrix::Form;

template <class F>
double fastest(F&& run) {
  double best = 1e9;
  for (const auto end = Clock::now() + std::chrono::milliseconds(150); Clock::now() < end;) {
    const auto start = Clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

std::vector<float> random_floats(std::size_t count) {
  static std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

/// A random weight of [n, k], packed in BF16 or 4 bit (groups of 32, bf16 scales).
struct Weight {
  PackedMatrix packed;
  AlignedVector<std::uint16_t> data, scales;
  AlignedVector<std::uint8_t> zeros;

  Weight(Form form, int n, int k) {
    packed.form = form, packed.n = n, packed.k = k;
    const std::size_t elements = static_cast<std::size_t>(packed.panels()) * k * kPanel;
    if (form == Form::kBF16) {
      for (const float value : random_floats(elements)) data.push_back(float_to_bf16(value));
    } else {
      std::mt19937 rng(2);
      packed.group_size = 32, packed.groups = k / 32;
      for (std::size_t i = 0; i < elements / 4; ++i) data.push_back(static_cast<std::uint16_t>(rng()));
      scales.assign(static_cast<std::size_t>(packed.panels()) * packed.groups * kPanel, float_to_bf16(0.01f));
      zeros.assign(scales.size(), 8);
    }
    packed.data = reinterpret_cast<const std::uint8_t*>(data.data());
    packed.scales = scales.data(), packed.zeros = zeros.data();
  }
};

double linear_seconds(const PackedMatrix& weight, int rows) {
  const std::vector<float> x = random_floats(static_cast<std::size_t>(rows) * weight.k);
  std::vector<float> y(static_cast<std::size_t>(rows) * weight.n);
  AlignedVector<float> scratch(static_cast<std::size_t>(weight.k) * kPanel);
  MatmulArgs args{&weight, x.data(), weight.k, rows, y.data(), weight.n};
  args.scratch = scratch.data();
  return fastest([&] { kernels().matmul(args, 0, weight.panels()); });
}

/// Two query heads of one KV head, one token: what decoding asks for. `instances` BF16 caches of `length` keys are
/// read in turn, as those of several sequences, layers and heads: seconds of one.
double attention_seconds(int length, int head_dim, int instances) {
  const int tiles = (length + kTokenTile - 1) / kTokenTile;
  const std::size_t tile = static_cast<std::size_t>(head_dim) * kTokenTile,
                    cache = tile * static_cast<std::size_t>(tiles);
  const auto to_bf16 = [](const std::vector<float>& values) {
    AlignedVector<std::uint16_t> out;
    for (const float value : values) out.push_back(float_to_bf16(value));
    return out;
  };
  const AlignedVector<std::uint16_t> keys = to_bf16(random_floats(cache * static_cast<std::size_t>(instances)));
  const AlignedVector<std::uint16_t> values = to_bf16(random_floats(keys.size()));
  const std::vector<float> q = random_floats(static_cast<std::size_t>(2 * head_dim));
  std::vector<float> out(q.size());
  AlignedVector<float> scratch(static_cast<std::size_t>(attention_scratch_floats(head_dim)));
  const float* q_rows[] = {q.data(), q.data() + head_dim};
  float* out_rows[] = {out.data(), out.data() + head_dim};
  const int last_key[] = {length - 1, length - 1};
  AttentionArgs args;
  args.form = CacheForm::kBF16;
  args.tile_stride = static_cast<std::int64_t>(2 * tile);
  args.kv_length = length, args.head_dim = head_dim, args.scale = 0.09f;
  args.rows = 2, args.q_rows = q_rows, args.out_rows = out_rows, args.last_key = last_key;
  args.scratch = scratch.data();
  const double seconds = fastest([&] {
    for (int i = 0; i < instances; ++i) {
      args.keys = reinterpret_cast<const std::uint8_t*>(keys.data() + cache * static_cast<std::size_t>(i));
      args.values = reinterpret_cast<const std::uint8_t*>(values.data() + cache * static_cast<std::size_t>(i));
      kernels().attention(args);
    }
  });
  return seconds / instances;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> row_counts;
  for (int i = 1; i < argc; ++i) row_counts.push_back(std::atoi(argv[i]));
  if (row_counts.empty()) row_counts = {1, 4, 8, 16, 48};
  const double ceiling = bench::multiply_add_gflops(1);
  fmt::print("{} kernels, one thread; multiply-add ceiling {:.1f} GFLOP/s\n", kernels().name, ceiling);
  struct Shape {
    int n, k;
  };
  for (const auto& [form, name] : {std::pair{Form::kBF16, "bf16"}, std::pair{Form::kInt4, "4-bit"}}) {
    for (const Shape shape : {Shape{1024, 256}, Shape{256, 512}, Shape{4096, 256}}) {
      const Weight weight(form, shape.n, shape.k);
      for (const int rows : row_counts) {
        const double seconds = linear_seconds(weight.packed, rows);
        const double gflops = 2e-9 * rows * shape.n * shape.k / seconds;
        fmt::print("{:6} {:5} x {:4} {:4} rows {:8.1f} us {:7.1f} GFLOP/s  {:.2f}\n", name, shape.n, shape.k, rows,
                   1e6 * seconds, gflops, gflops / ceiling);
      }
    }
  }
  for (const int instances : {1, 192}) {  // 192: of 16 sequences, 6 layers, 2 KV heads
    for (const int length : {33, 80, 127}) {
      const double seconds = attention_seconds(length, 128, instances);
      const double gflops = 2e-9 * 2 * 2 * 128 * length / seconds;
      fmt::print("attention, 2 rows, {:4} keys, {:3} caches {:8.2f} us {:7.1f} GFLOP/s  {:.2f}\n", length, instances,
                 1e6 * seconds, gflops, gflops / ceiling);
    }
  }
}
