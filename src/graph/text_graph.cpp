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

void build_decoder(Plan& plan) {
  const auto& c = plan.config.text;
  Builder b(plan, plan.text);
  std::vector<LayerWeights> layers;
  for (int i = 0; i < c.num_layers; ++i) layers.push_back(add_layer_weights(b, plan, i));
  const NormId final_norm = b.norm({"model.language_model.norm.weight", "", c.hidden_size, c.rms_norm_eps});
  const int levels = static_cast<int>(plan.config.vision.deepstack_indexes.size());

  const BufferId residual = b.buffer("residual", Rows::kTokens, c.hidden_size);
  const BufferId normed = b.buffer("normed", Rows::kTokens, c.hidden_size);
  const BufferId partial = b.buffer("partial", Rows::kTokens, c.hidden_size);
  const BufferId qkv = b.buffer("qkv", Rows::kTokens, b.width_of(layers[0].qkv));
  const BufferId q = b.buffer("q", Rows::kTokens, plan.local_heads * c.head_dim);
  const BufferId attended = b.buffer("attended", Rows::kTokens, plan.local_heads * c.head_dim);
  const BufferId gate_up = b.buffer("gate_up", Rows::kTokens, b.width_of(layers[0].gate_up));
  const BufferId hidden_mlp = b.buffer("mlp", Rows::kTokens, c.intermediate_size / plan.ranks);
  const BufferId output = b.buffer("output", Rows::kOutputs, c.hidden_size);

  b.op(Embed{residual});
  b.op(AllReduce{residual});
  b.op(PlaceVisual{residual});
  b.op(Norm{residual, normed, layers[0].input_norm});
  for (int i = 0; i < c.num_layers; ++i) {
    const LayerWeights& w = layers[i];
    b.op(Linear{normed, qkv, w.qkv});
    b.op(QkNormRopeAppend{qkv, q, w.q_norm, w.k_norm, i});
    b.op(PagedAttention{q, attended, i});
    b.op(Linear{attended, partial, w.o});
    b.op(AllReduceAddNorm{partial, residual, normed, w.post_norm});
    b.op(Linear{normed, gate_up, w.gate_up});
    b.op(SwiGlu{gate_up, hidden_mlp});
    b.op(Linear{hidden_mlp, partial, w.down});
    AllReduceAddNorm join{partial, residual, normed, i + 1 < c.num_layers ? layers[i + 1].input_norm : final_norm};
    join.deepstack_level = i < levels ? i : -1;
    b.op(join);
  }
  b.op(SelectOutputs{normed, output});
  plan.text.outputs = {output};
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
