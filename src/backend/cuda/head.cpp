#include "backend/cuda/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/activation.h"

namespace qwenbench::backend::cuda {
namespace {

constexpr int kCompareRows = 128;  // rows of two tiles of logits that are on the device at a time

kernels::TopLogit better(kernels::TopLogit a, kernels::TopLogit b) {
  if (b.id < 0) return a;
  return a.id < 0 || b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

/// Every rank's `mine`, one after another, bit for bit.
template <class T>
std::vector<T> gather(comm::Communicator& comm, const std::vector<T>& mine) {
  static_assert(sizeof(T) % sizeof(float) == 0);
  std::vector<T> all(mine.size() * comm.size());
  const auto* from = reinterpret_cast<const float*>(mine.data());
  auto* to = reinterpret_cast<float*>(all.data());
  comm.all_gather({from, mine.size() * sizeof(T) / sizeof(float)}, {to, all.size() * sizeof(T) / sizeof(float)});
  return all;
}

/// One row's sums over the slices of all ranks; ln of the normalisers from them.
TokenScore combine(const kernels::LogitSums* slices, std::size_t count, std::size_t stride, int target) {
  TokenScore score;
  kernels::TopLogit top_x{0, -1}, top_y{0, -1};
  double target_x = 0, target_y = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const kernels::LogitSums& s = slices[i * stride];
    if (!s.finite) {
      score.finite = false;
      return score;
    }
    top_x = better(top_x, {s.max_x, s.top_x});
    top_y = better(top_y, {s.max_y, s.top_y});
    if (!s.has_target) continue;
    target_x = s.target_x;
    target_y = s.target_y;
  }
  double sum_x = 0, sum_y = 0, weighted = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const kernels::LogitSums& s = slices[i * stride];
    const double scale = std::exp(static_cast<double>(s.max_x) - top_x.value);
    sum_x += s.sum_x * scale;
    weighted += s.weighted * scale;
    sum_y += s.sum_y * std::exp(static_cast<double>(s.max_y) - top_y.value);
  }
  const double log_x = top_x.value + std::log(sum_x), log_y = top_y.value + std::log(sum_y);
  score.kld = std::max(0.0, weighted / sum_x + log_y - log_x);
  score.ln_p = target_y - log_y;
  score.ln_p_reference = target_x - log_x;
  score.delta_p = std::exp(score.ln_p) - std::exp(score.ln_p_reference);
  score.same_top1 = top_x.id == top_y.id;
  score.hit = top_y.id == target;
  return score;
}

}  // namespace

Head::Head(RankContext& context)
    : context_(context),
      weight_(std::get<graph::Linear>(context.plan.head.ops.front()).weight),
      width_(context.linears[weight_].n),
      first_id_(context.rank * width_),
      hidden_size_(context.plan.config.text.hidden_size) {}

bool Head::reserve(int rows) {
  bool moved = logits_.reserve(static_cast<std::size_t>(rows) * width_);
  moved |= top_.reserve(static_cast<std::size_t>(rows) * kernels::kTopLogitSlices);
  if (moved) host_top_.reserve(top_.size());
  return moved;
}

void Head::queue_top(const __nv_bfloat16* hidden, int rows) {
  reserve(rows);
  context_.runner.run(context_.linears[weight_], hidden, logits_.get(), true, rows, context_.stream);
  QWENBENCH_CUDA(kernels::top_logits(logits_.get(), rows, width_, first_id_, top_.get(), context_.stream));
  QWENBENCH_CUDA(cudaMemcpyAsync(host_top_.get(), top_.get(),
                                 sizeof(kernels::TopLogit) * rows * kernels::kTopLogitSlices, cudaMemcpyDeviceToHost,
                                 context_.stream));
}

void Head::load_product(const __nv_bfloat16* hidden, int rows) {
  if (rows == 0) return;
  reserve(rows);
  context_.runner.load(context_.linears[weight_], hidden, logits_.get(), true, rows, context_.stream);
}

void Head::top(std::span<std::int32_t> tokens) {
  context_.synchronize();
  std::vector<kernels::TopLogit> mine(tokens.size());
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    mine[row] = {0, -1};
    for (int slice = 0; slice < kernels::kTopLogitSlices; ++slice)
      mine[row] = better(mine[row], host_top_.get()[row * kernels::kTopLogitSlices + slice]);
  }
  const auto ranks = static_cast<std::size_t>(context_.host_comm->size());
  const auto all = ranks > 1 ? gather(*context_.host_comm, mine) : mine;
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    kernels::TopLogit top{0, -1};
    for (std::size_t rank = 0; rank < ranks; ++rank) top = better(top, all[rank * tokens.size() + row]);
    tokens[row] = top.id;
  }
}

void Head::compute(std::span<const float> hidden, int rows, float* out) {
  host_hidden_.reserve(hidden.size());
  hidden_.reserve(hidden.size());
  QWENBENCH_CUDA(
      cudaMemcpyAsync(host_hidden_.get(), hidden.data(), hidden.size_bytes(), cudaMemcpyHostToDevice, context_.stream));
  QWENBENCH_CUDA(
      kernels::to_bfloat16(host_hidden_.get(), static_cast<long long>(hidden.size()), hidden_.get(), context_.stream));
  context_.runner.run(context_.linears[weight_], hidden_.get(), out, true, rows, context_.stream);
}

void Head::logits(std::span<const float> hidden, int rows, std::span<float> out) {
  reserve(rows);
  compute(hidden, rows, logits_.get());
  std::vector<float> mine(static_cast<std::size_t>(rows) * width_);
  QWENBENCH_CUDA(cudaMemcpyAsync(mine.data(), logits_.get(), mine.size() * sizeof(float), cudaMemcpyDeviceToHost,
                                 context_.stream));
  context_.synchronize();
  const auto ranks = static_cast<std::size_t>(context_.host_comm->size());
  const auto all = ranks > 1 ? gather(*context_.host_comm, mine) : std::move(mine);
  if (out.empty()) return;
  for (std::size_t rank = 0; rank < ranks; ++rank)
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
      std::copy_n(all.begin() + static_cast<std::ptrdiff_t>((rank * rows + row) * width_), width_,
                  out.begin() + static_cast<std::ptrdiff_t>((row * ranks + rank) * width_));
}

void Head::compare(std::span<const float> reference, std::span<const float> variant,
                   std::span<const std::int32_t> targets, std::span<TokenScore> out) {
  const auto width = static_cast<std::size_t>(hidden_size_);
  for (std::size_t first = 0; first < targets.size(); first += kCompareRows) {
    const std::size_t rows = std::min<std::size_t>(kCompareRows, targets.size() - first);
    compare_tile(reference.subspan(first * width, rows * width), variant.subspan(first * width, rows * width),
                 targets.subspan(first, rows), out.subspan(first, rows));
  }
}

void Head::compare_tile(std::span<const float> reference, std::span<const float> variant,
                        std::span<const std::int32_t> targets, std::span<TokenScore> out) {
  const int rows = static_cast<int>(targets.size());
  reserve(rows);
  other_logits_.reserve(static_cast<std::size_t>(kCompareRows) * width_);
  sums_.reserve(kCompareRows);
  targets_.reserve(kCompareRows);
  compute(reference, rows, logits_.get());
  compute(variant, rows, other_logits_.get());
  QWENBENCH_CUDA(
      cudaMemcpyAsync(targets_.get(), targets.data(), targets.size_bytes(), cudaMemcpyHostToDevice, context_.stream));
  QWENBENCH_CUDA(kernels::compare_logits(logits_.get(), other_logits_.get(), targets_.get(), rows, width_, first_id_,
                                         sums_.get(), context_.stream));
  std::vector<kernels::LogitSums> mine(targets.size());
  QWENBENCH_CUDA(cudaMemcpyAsync(mine.data(), sums_.get(), mine.size() * sizeof(kernels::LogitSums),
                                 cudaMemcpyDeviceToHost, context_.stream));
  context_.synchronize();
  const auto ranks = static_cast<std::size_t>(context_.host_comm->size());
  const auto all = ranks > 1 ? gather(*context_.host_comm, mine) : mine;
  for (std::size_t row = 0; row < targets.size(); ++row)
    out[row] = combine(all.data() + row, ranks, targets.size(), targets[row]);
}

}  // namespace qwenbench::backend::cuda
