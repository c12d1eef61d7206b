#include <algorithm>
#include <atomic>

#include "backend/cpu/rank_context.h"

namespace qwenbench::backend::cpu {
namespace {

void norm_rows(RankContext& context, graph::NormId id, const float* in, float* out, std::int64_t count) {
  const graph::NormSpec& spec = context.plan.norms[id];
  const NormWeights& w = context.norms[id];
  const std::int64_t width = spec.width;
  context.for_items(count, width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (w.bias.empty())
        context.kernels.rms_norm(in + i * width, w.weight.data(), out + i * width, spec.width, spec.eps);
      else
        context.kernels.layer_norm(in + i * width, w.weight.data(), w.bias.data(), out + i * width, spec.width,
                                   spec.eps);
    }
  });
}

MatmulActivation activation_of(graph::Activation activation) {
  switch (activation) {
    case graph::Activation::kGeluTanh:
      return MatmulActivation::kGeluTanh;
    case graph::Activation::kGeluErf:
      return MatmulActivation::kGeluErf;
    default:
      return MatmulActivation::kNone;
  }
}

/// The panels [begin, end) of all parts of a Linear, counted through.
void multiply(const PackedLinear& linear, MatmulArgs args, int begin, int end, const Kernels& kernels) {
  int first_panel = 0;
  std::int64_t column = 0;
  float* const y = args.y;
  const float* const bias = args.bias;
  for (const PackedPart& part : linear.parts) {
    const int panels = part.matrix.panels();
    const int from = std::max(begin - first_panel, 0), to = std::min(end - first_panel, panels);
    if (from < to) {
      args.weight = &part.matrix;
      args.y = y + column;
      args.bias = bias ? bias + column : nullptr;
      kernels.matmul(args, from, to);
    }
    first_panel += panels;
    column += part.matrix.n;
  }
}

}  // namespace

void Activations::set_rows(graph::Rows kind, int rows) {
  rows_[static_cast<int>(kind)] = rows;
  for (std::size_t i = 0; i < data_.size(); ++i) {
    if (program_.buffers[i].rows != kind) continue;
    const std::size_t size = static_cast<std::size_t>(rows) * program_.buffers[i].width;
    if (data_[i].size() < size) data_[i].resize(size);
  }
}

void run(RankContext& context, Activations& acts, const graph::Norm& op) {
  const std::int64_t floats = std::int64_t{acts.rows(op.in)} * acts.width(op.in);
  norm_rows(context, op.norm, acts.data(op.in), acts.data(op.out), floats / context.plan.norms[op.norm].width);
}

void run(RankContext& context, Activations& acts, const graph::BeginResidual& op) {
  const std::int64_t rows = acts.rows(op.x);
  float* residual = acts.data(op.residual);
  std::copy_n(acts.data(op.x), rows * acts.width(op.x), residual);
  norm_rows(context, op.norm, residual, acts.data(op.out), rows);
}

void run(RankContext& context, Activations& acts, const graph::Linear& op) {
  const PackedLinear& linear = context.linears[op.weight];
  const graph::LinearSpec& spec = context.plan.linears[op.weight];
  MatmulArgs args{};
  args.x = acts.data(op.in);
  args.x_stride = linear.k;
  args.rows = acts.rows(op.out);
  args.y = acts.data(op.out);
  args.y_stride = linear.n;
  args.bias = linear.bias.empty() || spec.shard == graph::Shard::kRows ? nullptr : linear.bias.data();
  args.activation = activation_of(op.activation);
  if (args.rows == 0) return;
  const int threads = context.pool.size();
  // Several small shares a thread: a core that is late then holds up the others for little.
  const int share = std::max(4, linear.panels / (threads * 4) / 4 * 4);
  std::atomic<int> next{0};
  const auto work = [&](int thread) {
    MatmulArgs mine = args;
    mine.scratch = context.scratch_of(thread, std::int64_t{linear.k} * kPanel);
    for (int begin = next.fetch_add(share); begin < linear.panels; begin = next.fetch_add(share))
      multiply(linear, mine, begin, std::min(begin + share, linear.panels), context.kernels);
  };
  if (threads == 1 || std::int64_t{linear.panels} * kPanel * linear.k < 16384)
    work(0);
  else
    context.pool.run(work);
}

void run(RankContext& context, Activations& acts, const graph::AllReduce& op) {
  const std::int64_t width = acts.width(op.x), rows = acts.rows(op.x);
  float* x = acts.data(op.x);
  if (op.reduce && context.comm->size() > 1) context.comm->all_reduce({x, static_cast<std::size_t>(rows * width)});
  if (op.bias_of < 0 || context.linears[op.bias_of].bias.empty()) return;
  const float* bias = context.linears[op.bias_of].bias.data();
  context.for_items(rows, width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t i = 0; i < width; ++i) x[row * width + i] += bias[i];
  });
}

void run(RankContext& context, Activations& acts, const graph::AllReduceAddNorm& op, const FeatureOfRow& feature) {
  const std::int64_t width = acts.width(op.residual), rows = acts.rows(op.residual);
  float* partial = acts.data(op.partial);
  float* residual = acts.data(op.residual);
  float* out = acts.data(op.out);
  if (op.reduce && context.comm->size() > 1)
    context.comm->all_reduce({partial, static_cast<std::size_t>(rows * width)});
  const bool has_bias = op.bias_of >= 0 && !context.linears[op.bias_of].bias.empty();
  const float* bias = has_bias ? context.linears[op.bias_of].bias.data() : nullptr;
  context.for_items(rows, 3 * width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* r = residual + row * width;
      const float* p = partial + row * width;
      if (bias)
        for (std::int64_t i = 0; i < width; ++i) r[i] += p[i] + bias[i];
      else
        for (std::int64_t i = 0; i < width; ++i) r[i] += p[i];
      if (const float* f = op.deepstack_level >= 0
                               ? feature(op.deepstack_level, acts.kind(op.residual), static_cast<int>(row))
                               : nullptr)
        for (std::int64_t i = 0; i < width; ++i) r[i] += f[i];
      if (op.norm == graph::kNoNorm) continue;
      const NormWeights& w = context.norms[op.norm];
      const graph::NormSpec& spec = context.plan.norms[op.norm];
      if (w.bias.empty())
        context.kernels.rms_norm(r, w.weight.data(), out + row * width, spec.width, spec.eps);
      else
        context.kernels.layer_norm(r, w.weight.data(), w.bias.data(), out + row * width, spec.width, spec.eps);
    }
  });
}

void run(RankContext& context, Activations& acts, const graph::SwiGlu& op) {
  const int width = acts.width(op.out);
  const float* in = acts.data(op.in);
  float* out = acts.data(op.out);
  context.for_items(acts.rows(op.out), 4 * width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      context.kernels.swiglu(in + row * 2 * width, in + row * 2 * width + width, out + row * width, width);
  });
}

void run(RankContext& context, Activations& acts, const graph::AllGather& op) {
  const std::int64_t width = acts.width(op.in), rows = acts.rows(op.in), ranks = context.comm->size();
  const float* in = acts.data(op.in);
  float* out = acts.data(op.out);
  if (ranks == 1) {
    std::copy(in, in + rows * width, out);
    return;
  }
  std::vector<float> gathered(static_cast<std::size_t>(ranks * rows * width));
  context.comm->all_gather({in, static_cast<std::size_t>(rows * width)}, gathered);
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    for (std::int64_t row = 0; row < rows; ++row)
      std::copy_n(gathered.data() + (rank * rows + row) * width, width, out + (row * ranks + rank) * width);
}

}  // namespace qwenbench::backend::cpu
