#include "backend/cuda/text_step.h"

#include <algorithm>

#include "kernels/embedding.h"
#include "kernels/prefill_attention.h"
#include "kernels/qk_norm_rope_append.h"

namespace qwenbench::backend::cuda {

RowFeatures TextStep::row_features(int level, graph::Rows rows) const {
  if (level < 0 || !arrays.has_visual) return {};
  return {features[level + 1].get(),
          rows == graph::Rows::kOutputs ? arrays.feature_of_output : arrays.feature_of_token};
}

void reserve_features(TextStep& step, int levels, int width) {
  step.features.resize(static_cast<std::size_t>(levels));
  std::size_t rows = 0;
  for (const auto& span : step.input->visual) rows += span.num_rows;
  for (auto& level : step.features) level.reserve(rows * width);
}

void gather_features(TextStep& step, std::span<const std::shared_ptr<const VisualFeatures>> pictures, int width,
                     cudaStream_t stream) {
  if (step.input->visual.empty()) return;
  for (std::size_t level = 0; level < step.features.size(); ++level) {
    __nv_bfloat16* out = step.features[level].get();
    for (const auto& span : step.input->visual) {
      const auto& picture = static_cast<const CudaVisualFeatures&>(*pictures[span.picture]);
      const std::size_t count = static_cast<std::size_t>(span.num_rows) * width;
      QWENBENCH_CUDA(cudaMemcpyAsync(out, picture.levels[level].get() + std::int64_t{span.first_feature} * width,
                                     count * sizeof(__nv_bfloat16), cudaMemcpyDeviceToDevice, stream));
      out += count;
    }
  }
}

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::Embed& op,
         const EmbeddingShard& embedding) {
  QWENBENCH_CUDA(kernels::embed(step.arrays.ids, buffers.rows(op.out), embedding.rows.get(), embedding.first_id,
                                embedding.count, embedding.width, buffers.data(op.out), context.stream));
}

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::PlaceVisual& op) {
  if (!step.arrays.has_visual) return;
  QWENBENCH_CUDA(kernels::gather_rows(step.features[0].get(), step.arrays.feature_of_token, buffers.rows(op.x),
                                      buffers.row_bytes(op.x), buffers.bytes(op.x), context.stream));
}

namespace {

/// Rows [tokens, heads * d] on the device as fp32 on the host.
std::vector<float> to_host(RankContext& context, const __nv_bfloat16* from, std::size_t count) {
  std::vector<std::uint16_t> stored(count);
  context.synchronize();  // the copy, into pageable memory, then waits for no other rank
  QWENBENCH_CUDA(cudaMemcpyAsync(stored.data(), from, count * 2, cudaMemcpyDeviceToHost, context.stream));
  context.synchronize();
  std::vector<float> values(count);
  std::transform(stored.begin(), stored.end(), values.begin(), bf16_to_float);
  return values;
}

/// Shows the observer what it wants to see of K and V as the cache stores them, and of Q, in fp32 on the host.
void show(RankContext& context, TextStep& step, int layer, const __nv_bfloat16* q, int tokens) {
  using Kind = KvObserver::Kind;
  const int heads = context.plan.local_heads, kv_heads = context.plan.local_kv_heads,
            d = context.plan.config.text.head_dim;
  const int copies = std::max(1, context.plan.ranks / context.plan.config.text.num_kv_heads);
  std::vector<std::uint8_t> is_image(static_cast<std::size_t>(tokens), 0);
  for (const auto& span : step.input->visual) std::fill_n(is_image.begin() + span.first_row, span.num_rows, 1);
  const auto show_heads = [&](Kind kind, const __nv_bfloat16* from, int count, int first) {
    if (!step.input->observer->wants(kind)) return;
    const int width = count * d;
    const auto values = to_host(context, from, static_cast<std::size_t>(tokens) * width);
    for (int head = 0; head < count; ++head)
      step.input->observer->observe(kind, layer, first + head, values.data() + head * d, tokens, width, is_image);
  };
  show_heads(Kind::kKey, step.observed_k.get(), kv_heads, context.rank / copies * kv_heads);
  show_heads(Kind::kValue, step.observed_v.get(), kv_heads, context.rank / copies * kv_heads);
  show_heads(Kind::kQuery, q, heads, context.rank * heads);
}

kernels::QkNormRopeAppend append_args(const RankContext& context, Buffers& buffers, const TextStep& step,
                                      const graph::QkNormRopeAppend& op) {
  kernels::QkNormRopeAppend args{};
  args.qkv = buffers.data(op.qkv);
  args.q_out = buffers.data(op.q_out);
  args.tokens = buffers.rows(op.qkv);
  args.heads = context.plan.local_heads;
  args.q_weight = context.norms[op.q_norm].weight.get();
  args.k_weight = context.norms[op.k_norm].weight.get();
  args.eps = context.plan.norms[op.q_norm].eps;
  args.cos = step.cos.get();
  args.sin = step.sin.get();
  args.cache = step.cache->layer(op.layer, CudaKvCache::Side::kWrite);
  args.slot = step.arrays.slots;
  return args;
}

/// What all layers have in common.
kernels::DecodeAttention decode_args(const TextStep& step, const SequenceGroup& sequences) {
  kernels::DecodeAttention args{};
  args.batch = sequences.batch;
  args.max_kv_length = step.captured ? step.max_model_len : sequences.max_kv_length;
  args.workspace = step.attention_workspace.get();
  return args;
}

kernels::DecodeAttention decode_args(const RankContext& context, Buffers& buffers, const TextStep& step,
                                     const graph::PagedAttention& op, const SequenceGroup& sequences) {
  kernels::DecodeAttention args = decode_args(step, sequences);
  args.q = buffers.data(op.q);
  args.out = buffers.data(op.out);
  args.heads = context.plan.local_heads;
  args.cache = step.cache->layer(op.layer, CudaKvCache::Side::kRead);
  args.out_factor = step.attended_factor;
  args.q_scale = step.cache->q_scale(op.layer);
  if (args.q_scale) args.prob_scale = step.cache->prob_scale(op.layer);
  return args;
}

}  // namespace

void plan_decode(const RankContext& context, const TextStep& step, const SequenceGroup& sequences) {
  if (sequences.count == 0) return;
  kernels::DecodeAttention args = decode_args(step, sequences);
  args.cache.kv_heads = context.plan.local_kv_heads;
  QWENBENCH_CUDA(kernels::plan_decode_attention(args, context.stream));
}

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::QkNormRopeAppend& op) {
  kernels::QkNormRopeAppend args = append_args(context, buffers, step, op);
  const bool observed = step.input->observer != nullptr;
  if (observed) {
    args.k_out = step.observed_k.get();
    args.v_out = step.observed_v.get();
  }
  QWENBENCH_CUDA(kernels::qk_norm_rope_append(args, context.stream));
  if (observed) show(context, step, op.layer, buffers.data(op.q_out), args.tokens);
}

std::optional<kernels::DecodeAttention> as_one(const RankContext& context, Buffers& buffers, const TextStep& step,
                                               const graph::QkNormRopeAppend& append,
                                               const graph::PagedAttention& attention) {
  if (append.q_out != attention.q || step.input->observer || !step.decodes()) return std::nullopt;
  kernels::DecodeAttention args = decode_args(context, buffers, step, attention, step.arrays.decode);
  args.raw = append_args(context, buffers, step, append);
  return args;
}

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::PagedAttention& op) {
  const bool outputs = buffers.kind(op.q) == graph::Rows::kOutputs;
  const StepArrays& arrays = step.arrays;
  const SequenceGroup& decode = outputs ? arrays.decode_outputs : arrays.decode;
  if (outputs) plan_decode(context, step, decode);  // none of all sequences follows
  if (decode.count > 0)
    QWENBENCH_CUDA(kernels::decode_attention(decode_args(context, buffers, step, op, decode), context.stream));
  if (arrays.prefill.count > 0 && buffers.rows(op.q) > 0) {
    kernels::PrefillAttention args{};
    args.q = buffers.data(op.q);
    args.out = buffers.data(op.out);
    args.rows = buffers.rows(op.q);
    args.heads = context.plan.local_heads;
    args.cache = step.cache->layer(op.layer, CudaKvCache::Side::kRead);
    args.batch = arrays.prefill.batch;
    args.row_token = outputs ? arrays.output_rows : nullptr;
    args.min_rows = 2;
    args.max_total_kv = arrays.prefill.total_kv;
    args.q_scale = step.cache->q_scale(op.layer);
    if (args.q_scale) args.prob_scale = step.cache->prob_scale(op.layer);
    args.workspace = step.prefill_workspace.get();
    args.workspace_bytes = step.prefill_workspace.bytes();
    QWENBENCH_CUDA(kernels::prefill_attention(args, context.stream));
  }
}

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::SelectOutputs& op) {
  QWENBENCH_CUDA(kernels::gather_rows(buffers.bytes(op.in), step.arrays.output_rows, buffers.rows(op.out),
                                      buffers.row_bytes(op.in), buffers.bytes(op.out), context.stream));
}

}  // namespace qwenbench::backend::cuda
