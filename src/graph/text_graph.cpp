// The text decoder: h += o_proj(attention(norm(h))); h += down(silu(gate(n)) * up(n)); DeepStack features join the
// residual after each of the first decoder layers.
#include <fmt/format.h>

#include "graph/builder.h"

namespace qwenbench::graph {
namespace {

struct LayerWeights {
  LinearId qkv, o, gate_up, down;
  NormId q_norm, k_norm, input_norm, post_norm;
};

LayerWeights add_layer_weights(Builder& b, const Plan& plan, int layer) {
  const auto& c = plan.config.text;
  const std::string base = fmt::format("model.language_model.layers.{}.", layer);
  const std::string attn = base + "self_attn.", mlp = base + "mlp.";
  const int q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const int copies = std::max(1, plan.ranks / c.num_kv_heads);
  LayerWeights w;
  w.qkv = b.linear(LinearSpec{
      {{attn + "q_proj", q, 0, q}, {attn + "k_proj", kv, 0, kv, copies}, {attn + "v_proj", kv, 0, kv, copies}},
      c.hidden_size,
      Shard::kColumns});
  w.o = b.linear(attn + "o_proj", c.hidden_size, q, Shard::kRows, false);
  w.gate_up = b.linear(LinearSpec{{{mlp + "gate_proj", c.intermediate_size, 0, c.intermediate_size},
                                   {mlp + "up_proj", c.intermediate_size, 0, c.intermediate_size}},
                                  c.hidden_size,
                                  Shard::kColumns});
  w.down = b.linear(mlp + "down_proj", c.hidden_size, c.intermediate_size, Shard::kRows, false);
  w.q_norm = b.norm({attn + "q_norm.weight", "", c.head_dim, c.rms_norm_eps});
  w.k_norm = b.norm({attn + "k_norm.weight", "", c.head_dim, c.rms_norm_eps});
  w.input_norm = b.norm({base + "input_layernorm.weight", "", c.hidden_size, c.rms_norm_eps});
  w.post_norm = b.norm({base + "post_attention_layernorm.weight", "", c.hidden_size, c.rms_norm_eps});
  return w;
}

/// The buffers that a layer works on, all with the same kind of rows.
struct LayerBuffers {
  BufferId residual, normed, partial, q, attended, gate_up, mlp;
};

LayerBuffers add_layer_buffers(Builder& b, const Plan& plan, Rows rows, int gate_up_width) {
  const auto& c = plan.config.text;
  const int heads_width = plan.local_heads * c.head_dim;
  LayerBuffers t;
  t.residual = b.buffer("residual", rows, c.hidden_size, Precision::kWide);
  t.normed = b.buffer("normed", rows, c.hidden_size);
  t.partial = b.buffer("partial", rows, c.hidden_size);
  t.q = b.buffer("q", rows, heads_width);
  t.attended = b.buffer("attended", rows, heads_width);
  t.gate_up = b.buffer("gate_up", rows, gate_up_width);
  t.mlp = b.buffer("mlp", rows, c.intermediate_size / plan.ranks);
  return t;
}

/// From the queries on: attention, then the feed-forward half. next_norm is applied to what the layer leaves.
void add_rest_of_layer(Builder& b, const Plan& plan, int layer, const LayerWeights& w, const LayerBuffers& t,
                       NormId next_norm) {
  const int levels = static_cast<int>(plan.config.vision.deepstack_indexes.size());
  b.op(PagedAttention{t.q, t.attended, layer});
  b.op(Linear{t.attended, t.partial, w.o});
  b.op(AllReduceAddNorm{t.partial, t.residual, t.normed, w.post_norm});
  b.op(Linear{t.normed, t.gate_up, w.gate_up});
  b.op(SwiGlu{t.gate_up, t.mlp});
  b.op(Linear{t.mlp, t.partial, w.down});
  AllReduceAddNorm join{t.partial, t.residual, t.normed, next_norm};
  join.deepstack_level = layer < levels ? layer : -1;
  b.op(join);
}

void build_decoder(Plan& plan) {
  const auto& c = plan.config.text;
  Builder b(plan, plan.text);
  std::vector<LayerWeights> layers;
  for (int i = 0; i < c.num_layers; ++i) layers.push_back(add_layer_weights(b, plan, i));
  const NormId final_norm = b.norm({"model.language_model.norm.weight", "", c.hidden_size, c.rms_norm_eps});

  const int gate_up_width = b.width_of(layers[0].gate_up);
  const LayerBuffers all = add_layer_buffers(b, plan, Rows::kTokens, gate_up_width);
  const LayerBuffers wanted = add_layer_buffers(b, plan, Rows::kOutputs, gate_up_width);
  const BufferId qkv = b.buffer("qkv", Rows::kTokens, b.width_of(layers[0].qkv));

  b.op(Embed{all.partial});
  b.op(AllReduce{all.partial});
  b.op(PlaceVisual{all.partial});
  b.op(BeginResidual{all.partial, all.residual, all.normed, layers[0].input_norm});
  for (int i = 0; i < c.num_layers; ++i) {
    b.op(Linear{all.normed, qkv, layers[i].qkv});
    b.op(QkNormRopeAppend{qkv, all.q, layers[i].q_norm, layers[i].k_norm, i});
    const bool last = i + 1 == c.num_layers;
    if (last) {  // every token's K and V are in the cache; beyond that only the wanted rows are ever read
      b.op(SelectOutputs{all.q, wanted.q});
      b.op(SelectOutputs{all.residual, wanted.residual});
    }
    add_rest_of_layer(b, plan, i, layers[i], last ? wanted : all, last ? final_norm : layers[i + 1].input_norm);
  }
  plan.text.outputs = {wanted.normed};
}

void build_head(Plan& plan) {
  const auto& c = plan.config.text;
  Builder b(plan, plan.head);
  const LinearId weight =
      b.linear(c.tie_word_embeddings ? plan.embedding.substr(0, plan.embedding.rfind(".weight")) : "lm_head",
               c.vocab_size, c.hidden_size, Shard::kColumns, false);
  const BufferId hidden = b.buffer("hidden", Rows::kOutputs, c.hidden_size);
  const BufferId mine = b.buffer("local_logits", Rows::kOutputs, c.vocab_size / plan.ranks);
  const BufferId logits = b.buffer("logits", Rows::kOutputs, c.vocab_size);
  b.op(Linear{hidden, mine, weight});
  b.op(AllGather{mine, logits});
  plan.head.input = hidden;
  plan.head.outputs = {logits};
}

}  // namespace

void build_text(Plan& plan) {
  plan.embedding = "model.language_model.embed_tokens.weight";
  build_decoder(plan);
  build_head(plan);
}

}  // namespace qwenbench::graph
