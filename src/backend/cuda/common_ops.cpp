#include "backend/cuda/rank_context.h"
#include "kernels/activation.h"
#include "kernels/add_norm.h"

namespace qwenbench::backend::cuda {
namespace {

kernels::Activation activation_of(graph::Activation activation) {
  switch (activation) {
    case graph::Activation::kGeluTanh:
      return kernels::Activation::kGeluTanh;
    case graph::Activation::kGeluErf:
      return kernels::Activation::kGeluErf;
    default:
      return kernels::Activation::kNone;
  }
}

void set_norm(const RankContext& context, graph::NormId id, __nv_bfloat16* out, kernels::AddNorm& args) {
  if (id == graph::kNoNorm) return;
  const DeviceNorm& norm = context.norms[id];
  args.out = out;
  args.weight = norm.weight.get();
  args.norm_bias = norm.bias.get();
  args.eps = context.plan.norms[id].eps;
}

}  // namespace

void run(RankContext& context, Buffers& buffers, const graph::Norm& op) {
  kernels::AddNorm args;
  args.residual = buffers.wide(op.in);
  args.width = context.plan.norms[op.norm].width;
  args.rows = static_cast<int>(std::int64_t{buffers.rows(op.in)} * buffers.width(op.in) / args.width);
  set_norm(context, op.norm, buffers.data(op.out), args);
  QWENBENCH_CUDA(kernels::add_norm(args, context.stream));
}

void run(RankContext& context, Buffers& buffers, const graph::BeginResidual& op) {
  kernels::AddNorm args;
  args.residual = buffers.wide(op.residual);
  args.partial = buffers.data(op.x);
  args.begins = true;
  args.rows = buffers.rows(op.residual);
  args.width = buffers.width(op.residual);
  set_norm(context, op.norm, buffers.data(op.out), args);
  QWENBENCH_CUDA(kernels::add_norm(args, context.stream));
}

Epilogue epilogue_of(const RankContext& context, const graph::Linear& op) {
  const bool bias_waits = context.plan.linears[op.weight].shard == graph::Shard::kRows;  // for the all-reduce
  return {bias_waits ? nullptr : context.linears[op.weight].bias.get(), activation_of(op.activation)};
}

void run(RankContext& context, Buffers& buffers, const graph::Linear& op) {
  const int rows = buffers.rows(op.out);
  if (rows == 0) return;
  context.runner.run(context.linears[op.weight], buffers.data(op.in), buffers.data(op.out), false, rows, context.stream,
                     epilogue_of(context, op));
}

void run(RankContext& context, Buffers& buffers, const graph::AllReduce& op) {
  const int rows = buffers.rows(op.x), width = buffers.width(op.x);
  if (op.reduce && context.comm)
    context.comm->all_reduce(buffers.data(op.x), static_cast<std::size_t>(rows) * width, context.stream);
  if (const __nv_bfloat16* bias = context.bias_of(op.bias_of))
    QWENBENCH_CUDA(
        kernels::bias_activation(buffers.data(op.x), bias, kernels::Activation::kNone, rows, width, context.stream));
}

void run(RankContext& context, Buffers& buffers, const graph::SwiGlu& op) {
  QWENBENCH_CUDA(kernels::swiglu(buffers.data(op.in), buffers.rows(op.in), buffers.width(op.out), buffers.data(op.out),
                                 context.stream));
}

void run(RankContext& context, Buffers& buffers, const graph::AllReduceAddNorm& op, const RowFeatures& features) {
  kernels::AddNorm args;
  args.residual = buffers.wide(op.residual);
  args.partial = buffers.data(op.partial);
  args.bias = context.bias_of(op.bias_of);
  args.features = features.features;
  args.feature_of_row = features.feature_of_row;
  args.rows = buffers.rows(op.residual);
  args.width = buffers.width(op.residual);
  if (args.rows == 0) return;
  set_norm(context, op.norm, buffers.data(op.out), args);
  if (!op.reduce || !context.comm) {
    QWENBENCH_CUDA(kernels::add_norm(args, context.stream));
    return;
  }
  context.comm->all_reduce_add_norm(args, context.stream);
}

}  // namespace qwenbench::backend::cuda
