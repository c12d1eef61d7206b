// The vision tower: patch embedding, position table, pre-norm blocks with 2-D RoPE, and one merger per output
// (DeepStack levels read the blocks of deepstack_indexes, the main merger the last one).
#include <fmt/format.h>

#include <algorithm>

#include "graph/builder.h"

namespace qwenbench::graph {
namespace {

constexpr float kLayerNormEps = 1e-6f;

struct TowerBuffers {
  BufferId hidden, normed, qkv, attended, partial, mlp;
};

NormSpec layer_norm(const std::string& name, int width) {
  return {name + ".weight", name + ".bias", width, kLayerNormEps};
}

/// A row-split Linear leaves its bias to the all-reduce behind it; a replicated one has added it already.
LinearId bias_after(const Plan& plan, LinearId linear) { return plan.vision_sharded ? linear : -1; }

/// The norm joined to the residual sum of each half block is that of the next half: a block leaves `normed` ready.
void add_block(Builder& b, const Plan& plan, int block, const TowerBuffers& t, NormId next_norm) {
  const auto& v = plan.config.vision;
  const std::string base = fmt::format("model.visual.blocks.{}.", block);
  const Shard columns = plan.vision_sharded ? Shard::kColumns : Shard::kReplicated;
  const Shard rows = plan.vision_sharded ? Shard::kRows : Shard::kReplicated;
  const int h = v.hidden_size;
  LinearSpec qkv{{}, h, columns, true};
  for (int part = 0; part < 3; ++part) qkv.parts.push_back({base + "attn.qkv", 3 * h, part * h, h});
  const LinearId qkv_id = b.linear(qkv);
  const LinearId proj = b.linear(base + "attn.proj", h, h, rows, true);
  const LinearId fc1 = b.linear(base + "mlp.linear_fc1", v.intermediate_size, h, columns, true);
  const LinearId fc2 = b.linear(base + "mlp.linear_fc2", h, v.intermediate_size, rows, true);
  const NormId norm2 = b.norm(layer_norm(base + "norm2", h));

  b.op(Linear{t.normed, t.qkv, qkv_id});
  b.op(VisionRope{t.qkv});
  b.op(VisionAttention{t.qkv, t.attended});
  b.op(Linear{t.attended, t.partial, proj});
  b.op(AllReduceAddNorm{t.partial, t.hidden, t.normed, norm2, bias_after(plan, proj), -1, plan.vision_sharded});
  b.op(Linear{t.normed, t.mlp, fc1, Activation::kGeluTanh});
  b.op(Linear{t.mlp, t.partial, fc2});
  b.op(AllReduceAddNorm{t.partial, t.hidden, t.normed, next_norm, bias_after(plan, fc2), -1, plan.vision_sharded});
}

/// merge_unit neighbouring rows become one; the main merger normalises before that, a DeepStack merger after it.
BufferId add_merger(Builder& b, const Plan& plan, const std::string& base, bool norm_after_merge,
                    const TowerBuffers& t) {
  const auto& v = plan.config.vision;
  const Shard columns = plan.vision_sharded ? Shard::kColumns : Shard::kReplicated;
  const Shard rows = plan.vision_sharded ? Shard::kRows : Shard::kReplicated;
  const int wide = v.hidden_size * v.merge_unit();
  const NormId norm = b.norm(layer_norm(base + "norm", norm_after_merge ? wide : v.hidden_size));
  const LinearId fc1 = b.linear(base + "linear_fc1", wide, wide, columns, true);
  const LinearId fc2 = b.linear(base + "linear_fc2", v.out_hidden_size, wide, rows, true);
  const BufferId normed = norm_after_merge ? b.buffer("merger_normed", Rows::kMerged, wide)
                                           : b.buffer("merger_normed", Rows::kPatches, v.hidden_size);
  const BufferId wide_hidden = b.buffer("merger_hidden", Rows::kMerged, b.width_of(fc1));
  const BufferId out = b.buffer("features", Rows::kMerged, v.out_hidden_size);
  b.op(Norm{t.hidden, normed, norm});
  b.op(Linear{normed, wide_hidden, fc1, Activation::kGeluErf});
  b.op(Linear{wide_hidden, out, fc2});
  b.op(AllReduce{out, plan.vision_sharded, bias_after(plan, fc2)});
  return out;
}

}  // namespace

void build_vision(Plan& plan) {
  const auto& v = plan.config.vision;
  plan.position_embedding = "model.visual.pos_embed.weight";
  Builder b(plan, plan.vision);
  const int ranks = plan.vision_sharded ? plan.ranks : 1;
  const BufferId patches = b.buffer("patches", Rows::kPatches, v.patch_dim());
  TowerBuffers t;
  t.hidden = b.buffer("hidden", Rows::kPatches, v.hidden_size, Precision::kWide);
  t.normed = b.buffer("normed", Rows::kPatches, v.hidden_size);
  t.qkv = b.buffer("qkv", Rows::kPatches, 3 * v.hidden_size / ranks);
  t.attended = b.buffer("attended", Rows::kPatches, v.hidden_size / ranks);
  t.partial = b.buffer("partial", Rows::kPatches, v.hidden_size);
  t.mlp = b.buffer("mlp", Rows::kPatches, v.intermediate_size / ranks);
  plan.vision.input = patches;

  const LinearId embed =
      b.linear("model.visual.patch_embed.proj", v.hidden_size, v.patch_dim(), Shard::kReplicated, true);
  std::vector<NormId> first_norms;
  for (int i = 0; i < v.depth; ++i)
    first_norms.push_back(b.norm(layer_norm(fmt::format("model.visual.blocks.{}.norm1", i), v.hidden_size)));
  b.op(Linear{patches, t.partial, embed});
  b.op(AddPositionEmbedding{t.partial});
  b.op(BeginResidual{t.partial, t.hidden, t.normed, first_norms[0]});
  std::vector<BufferId> levels;
  for (int i = 0; i < v.depth; ++i) {
    add_block(b, plan, i, t, i + 1 < v.depth ? first_norms[i + 1] : kNoNorm);
    const auto level = std::find(v.deepstack_indexes.begin(), v.deepstack_indexes.end(), i);
    if (level != v.deepstack_indexes.end()) {
      const auto index = level - v.deepstack_indexes.begin();
      levels.push_back(add_merger(b, plan, fmt::format("model.visual.deepstack_merger_list.{}.", index), true, t));
    }
  }
  const BufferId merged = add_merger(b, plan, "model.visual.merger.", false, t);
  plan.vision.outputs = {merged};
  plan.vision.outputs.insert(plan.vision.outputs.end(), levels.begin(), levels.end());
}

}  // namespace qwenbench::graph
