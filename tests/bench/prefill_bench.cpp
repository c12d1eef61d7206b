// What the products of a text layer and the vision tower take on one GPU, beside the rate of a large product in the same
// run. Dummy weights of the given config; each figure is the median of several runs.
//   prefill_bench CONFIG_DIRECTORY [SIDE]        SIDE: of the picture, pixels; 1024 where none is given
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend/cuda/rank_context.h"
#include "backend/cuda/vision_pass.h"
#include "base/thread_pool.h"

using namespace qwenbench;
using namespace qwenbench::backend;
using namespace qwenbench::backend::cuda;

namespace {

constexpr int kRepeats = 9;

class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    QWENBENCH_CUDA(cudaEventCreate(&begin_));
    QWENBENCH_CUDA(cudaEventCreate(&end_));
    QWENBENCH_CUDA(cudaEventRecord(begin_, stream_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void stop() { QWENBENCH_CUDA(cudaEventRecord(end_, stream_)); }
  double milliseconds() const {
    float ms = 0;
    QWENBENCH_CUDA(cudaEventSynchronize(end_));
    QWENBENCH_CUDA(cudaEventElapsedTime(&ms, begin_, end_));
    return ms;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_, end_;
};

double median_ms(cudaStream_t stream, const std::function<void()>& queue) {
  queue();  // warm-up
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    Stopwatch watch(stream);
    queue();
    watch.stop();
    times.push_back(watch.milliseconds());
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return times[kRepeats / 2];
}

/// Normal bf16 values of deviation 0.5, one million different ones.
void fill(__nv_bfloat16* data, std::size_t count) {
  constexpr std::size_t kPeriod = 1 << 20;
  static const std::vector<__nv_bfloat16> values = [] {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0, 0.5f);
    std::vector<__nv_bfloat16> out(kPeriod);
    for (auto& x : out) x = __float2bfloat16(normal(random));
    return out;
  }();
  for (std::size_t at = 0; at < count; at += kPeriod)
    QWENBENCH_CUDA(
        cudaMemcpy(data + at, values.data(), std::min(kPeriod, count - at) * sizeof *data, cudaMemcpyHostToDevice));
}

DeviceArray<__nv_bfloat16> random_matrix(std::size_t rows, std::size_t columns) {
  DeviceArray<__nv_bfloat16> out(rows * columns);
  fill(out.get(), rows * columns);
  return out;
}

double tera(double operations, double ms) { return operations / ms * 1e-9; }

/// TFLOP/s of a product of three equal sides.
double gemm_rate(DenseGemm& gemm, cudaStream_t stream) {
  constexpr int kSide = 8192;
  const auto x = random_matrix(kSide, kSide), w = random_matrix(kSide, kSide), y = random_matrix(kSide, kSide);
  const double ms = median_ms(stream, [&] {
    gemm.multiply(x.get(), w.get(), y.get(), false, kSide, kSide, kSide, stream);
  });
  const double rate = tera(2.0 * kSide * kSide * kSide, ms);
  fmt::print("bf16 product {}^3: {:.0f} TFLOP/s\n", kSide, rate);
  return rate;
}

/// Loads what the program multiplies by; other Linears stay empty.
void load(RankContext& context, const model::WeightSource& source, const graph::Program& program, std::size_t products) {
  ThreadPool pool(16);
  LinearLoader loader(source, context.rank, context.plan.ranks, true, pool);
  context.linears.resize(context.plan.linears.size());
  for (const auto& op : program.ops) {
    const auto* linear = std::get_if<graph::Linear>(&op);
    if (!linear || products == 0) continue;
    context.linears[linear->weight] = loader.load(context.plan.linears[linear->weight], false);
    --products;
  }
  loader.finish();
  context.runner.reserve(context.linears);
}

// ---- text ----

constexpr int kProductsOfLayer = 4;

void bench_layer(const model::WeightSource& source, DenseGemm& gemm, int ranks, double rate) {
  RankContext context(graph::build_plan(source.config(), ranks), 0, 0, comm::make_single());
  load(context, source, context.plan.text, kProductsOfLayer);
  for (const int rows : {2048, 8192}) {
    double operations = 0, all = 0, products = 0;
    for (const DeviceLinear& linear : context.linears) {
      if (linear.n == 0) continue;
      const auto x = random_matrix(rows, linear.k), w = random_matrix(linear.n, linear.k),
                 y = random_matrix(rows, linear.n);
      const double flop = 2.0 * rows * linear.n * linear.k;
      const double run = median_ms(context.stream, [&] {
        context.runner.run(linear, x.get(), y.get(), false, rows, context.stream);
      });
      const double product = median_ms(context.stream, [&] {
        gemm.multiply(x.get(), w.get(), y.get(), false, rows, linear.n, linear.k, context.stream);
      });
      fmt::print("  {:5} x {:5} x {:5}: {:7.3f} ms, of which the product {:7.3f} ms, {:.0f} TFLOP/s\n", rows, linear.n,
                 linear.k, run, product, tera(flop, product));
      operations += flop;
      all += run;
      products += product;
    }
    fmt::print("a layer's products, {} of {} ranks, {} rows: {:.3f} ms, {:.0f} TFLOP/s, share {:.3f}; without "
               "dequantization {:.3f} ms, share {:.3f}\n",
               1, ranks, rows, all, tera(operations, all), tera(operations, all) / rate, products,
               tera(operations, products) / rate);
  }
}

// ---- the tower ----

struct Tower {
  RankContext context;
  Buffers buffers;
  VisionPass pass;
  const graph::Program& program() const { return context.plan.vision; }

  explicit Tower(const model::WeightSource& source)
      : context(graph::build_plan(source.config(), 1), 0, 0, comm::make_single()), buffers(context.plan.vision) {
    load(context, source, context.plan.vision, context.plan.linears.size());
    const auto& vision = context.plan.config.vision;
    for (const auto& spec : context.plan.norms) {
      DeviceNorm norm;
      norm.weight = random_matrix(1, spec.width);
      if (!spec.bias.empty()) norm.bias = random_matrix(1, spec.width);
      context.norms.push_back(std::move(norm));
    }
    pass.position_table = random_matrix(vision.num_position_embeddings, vision.hidden_size);
    pass.side = static_cast<int>(std::lround(std::sqrt(vision.num_position_embeddings)));
  }

  void set_picture(int grid) {
    const auto& vision = context.plan.config.vision;
    workload::Image image;
    image.grid_h = image.grid_w = grid;
    image.pixel_values.resize(static_cast<std::size_t>(grid) * grid * vision.patch_dim());
    std::mt19937 random(5);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& x : image.pixel_values) x = uniform(random);
    buffers.set_rows(graph::Rows::kPatches, grid * grid);
    buffers.set_rows(graph::Rows::kMerged, grid * grid / vision.merge_unit());
    prepare(pass, context, image, buffers.data(program().input));
  }

  void queue(const graph::Op& op) {
    std::visit(
        [&](const auto& o) {
          using T = std::decay_t<decltype(o)>;
          if constexpr (std::is_same_v<T, graph::AllReduceAddNorm>)
            run(context, buffers, o, {});
          else if constexpr (requires { run(context, buffers, pass, o); })
            run(context, buffers, pass, o);
          else if constexpr (requires { run(context, buffers, o); })
            run(context, buffers, o);
        },
        op);
  }

  double operations(const graph::Op& op) const {
    if (const auto* linear = std::get_if<graph::Linear>(&op)) {
      const DeviceLinear& w = context.linears[linear->weight];
      return 2.0 * buffers.rows(linear->out) * w.n * w.k;
    }
    if (const auto* attention = std::get_if<graph::VisionAttention>(&op))
      return 4.0 * std::pow(buffers.rows(attention->out), 2) * buffers.width(attention->out);
    return 0;
  }

  std::string name(const graph::Op& op) const {
    if (const auto* linear = std::get_if<graph::Linear>(&op)) {
      const DeviceLinear& w = context.linears[linear->weight];
      return fmt::format("product {} x {} x {}", buffers.rows(linear->out), w.n, w.k);
    }
    if (std::holds_alternative<graph::VisionAttention>(op)) return "attention";
    if (std::holds_alternative<graph::VisionRope>(op)) return "rope";
    return "norms and the rest";
  }
};

struct Share {
  int count = 0;
  double ms = 0, operations = 0;
};

/// By kind of operation: the best of several passes, each operation between two events.
std::map<std::string, Share> by_kind(Tower& tower) {
  std::map<std::string, Share> best;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<std::unique_ptr<Stopwatch>> watches;
    for (const auto& op : tower.program().ops) {
      watches.push_back(std::make_unique<Stopwatch>(tower.context.stream));
      tower.queue(op);
      watches.back()->stop();
    }
    std::map<std::string, Share> shares;
    for (std::size_t i = 0; i < watches.size(); ++i) {
      const auto& op = tower.program().ops[i];
      Share& share = shares[tower.name(op)];
      ++share.count;
      share.ms += watches[i]->milliseconds();
      share.operations += tower.operations(op);
    }
    for (const auto& [name, share] : shares)
      if (best[name].count == 0 || share.ms < best[name].ms) best[name] = share;
  }
  return best;
}

void bench_tower(const model::WeightSource& source, int side, double rate) {
  Tower tower(source);
  tower.set_picture(side / source.config().vision.patch_size);
  const auto queue_all = [&] {
    for (const auto& op : tower.program().ops) tower.queue(op);
  };
  const double ms = median_ms(tower.context.stream, queue_all);
  double operations = 0;
  for (const auto& [name, share] : by_kind(tower)) {
    fmt::print("  {:28} x {:3}: {:7.3f} ms", name, share.count, share.ms);
    if (share.operations > 0) fmt::print(", {:.0f} TFLOP/s", tera(share.operations, share.ms));
    fmt::print("\n");
    operations += share.operations;
  }
  fmt::print("vision tower, {} x {} pixels: {:.2f} ms, {:.2f} TFLOP, {:.0f} TFLOP/s, share {:.3f}\n", side, side, ms,
             operations * 1e-12, tera(operations, ms), tera(operations, ms) / rate);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: prefill_bench CONFIG_DIRECTORY [SIDE]\n");
    return 2;
  }
  try {
    const auto source = model::make_dummy_weights(argv[1], 1);
    Stream stream;
    DenseGemm gemm;
    const double rate = gemm_rate(gemm, stream);
    for (const int ranks : {1, 2}) bench_layer(*source, gemm, ranks, rate);
    bench_tower(*source, argc > 2 ? std::atoi(argv[2]) : 1024, rate);
  } catch (const std::exception& error) {
    fmt::print(stderr, "prefill_bench: {}\n", error.what());
    return 1;
  }
}
