// Every tensor of a Qwen3-VL checkpoint, from its config alone.
#include <fmt/format.h>

#include "base/error.h"
#include "model/weights.h"

namespace qwenbench::model {
namespace {

using Format = QuantizationConfig::Format;

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

class TensorList {
 public:
  explicit TensorList(const ModelConfig& config) : config_(config) {}

  std::vector<TensorSpec> take() { return std::move(specs_); }

  void plain(const std::string& name, std::vector<std::int64_t> shape) {
    specs_.push_back({name, config_.dtype, std::move(shape)});
  }

  /// weight and bias of a norm or a Linear that stays as it is.
  void with_bias(const std::string& module, std::int64_t size) {
    plain(module + ".weight", {size});
    plain(module + ".bias", {size});
  }

  void linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias = false) {
    const QuantizationConfig& quantization = config_.quantization;
    if (quantization.format == Format::kNone || quantization.ignores(module))
      plain(module + ".weight", {n, k});
    else if (quantization.format == Format::kPackQuantized)
      pack_quantized(module, n, k);
    else if (quantization.format == Format::kAwqGemm)
      awq(module, n, k);
    else
      fp8_block(module, n, k);
    if (bias) plain(module + ".bias", {n});
  }

 private:
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    specs_.push_back({name, dtype, std::move(shape)});
  }

  std::int64_t groups_of(const std::string& module, std::int64_t k) const {
    const int group_size = config_.quantization.group_size;
    if (k % group_size != 0) {
      throw InputError(
          fmt::format("config.json: quantization_config.group_size {} does not divide the {} inputs of {}; list it "
                      "among the modules that stay unquantized",
                      group_size, k, module));
    }
    return k / group_size;
  }

  void pack_quantized(const std::string& module, std::int64_t n, std::int64_t k) {
    const std::int64_t groups = groups_of(module, k);
    add(module + ".weight_packed", DType::kI32, {n, divide_up(k, 8)});
    add(module + ".weight_scale", config_.dtype, {n, groups});
    if (!config_.quantization.symmetric) add(module + ".weight_zero_point", DType::kI32, {divide_up(n, 8), groups});
    add(module + ".weight_shape", DType::kI64, {2});
    if (config_.quantization.activation_order) add(module + ".weight_g_idx", DType::kI32, {k});
  }

  void awq(const std::string& module, std::int64_t n, std::int64_t k) {
    const std::int64_t groups = groups_of(module, k);
    if (n % 8 != 0)
      throw InputError(
          fmt::format("config.json: AWQ cannot pack the {} outputs of {}, not a multiple of 8", n, module));
    add(module + ".qweight", DType::kI32, {k, n / 8});
    add(module + ".qzeros", DType::kI32, {groups, n / 8});
    add(module + ".scales", DType::kF16, {groups, n});
  }

  void fp8_block(const std::string& module, std::int64_t n, std::int64_t k) {
    add(module + ".weight", DType::kF8E4M3, {n, k});
    add(module + ".weight_scale_inv", DType::kBF16, {divide_up(n, 128), divide_up(k, 128)});
  }

  const ModelConfig& config_;
  std::vector<TensorSpec> specs_;
};

void add_text_layer(TensorList& list, const TextConfig& text, int layer) {
  const std::string prefix = fmt::format("model.language_model.layers.{}.", layer);
  const std::int64_t hidden = text.hidden_size, head = text.head_dim, inner = text.intermediate_size;
  list.plain(prefix + "input_layernorm.weight", {hidden});
  list.linear(prefix + "self_attn.q_proj", text.num_heads * head, hidden);
  list.linear(prefix + "self_attn.k_proj", text.num_kv_heads * head, hidden);
  list.linear(prefix + "self_attn.v_proj", text.num_kv_heads * head, hidden);
  list.linear(prefix + "self_attn.o_proj", hidden, text.num_heads * head);
  list.plain(prefix + "self_attn.q_norm.weight", {head});
  list.plain(prefix + "self_attn.k_norm.weight", {head});
  list.plain(prefix + "post_attention_layernorm.weight", {hidden});
  list.linear(prefix + "mlp.gate_proj", inner, hidden);
  list.linear(prefix + "mlp.up_proj", inner, hidden);
  list.linear(prefix + "mlp.down_proj", hidden, inner);
}

/// `norm_size`: the merger proper normalises before it joins four patches, DeepStack's mergers after.
void add_merger(TensorList& list, const VisionConfig& vision, const std::string& module, std::int64_t norm_size) {
  const std::int64_t joined = static_cast<std::int64_t>(vision.hidden_size) * vision.merge_unit();
  list.with_bias(module + ".norm", norm_size);
  list.linear(module + ".linear_fc1", joined, joined, true);
  list.linear(module + ".linear_fc2", vision.out_hidden_size, joined, true);
}

void add_vision(TensorList& list, const VisionConfig& vision) {
  const std::int64_t hidden = vision.hidden_size, inner = vision.intermediate_size;
  list.plain("model.visual.patch_embed.proj.weight",
             {hidden, vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size});
  list.plain("model.visual.patch_embed.proj.bias", {hidden});
  list.plain("model.visual.pos_embed.weight", {vision.num_position_embeddings, hidden});
  for (int block = 0; block < vision.depth; ++block) {
    const std::string prefix = fmt::format("model.visual.blocks.{}.", block);
    list.with_bias(prefix + "norm1", hidden);
    list.with_bias(prefix + "norm2", hidden);
    list.linear(prefix + "attn.qkv", 3 * hidden, hidden, true);
    list.linear(prefix + "attn.proj", hidden, hidden, true);
    list.linear(prefix + "mlp.linear_fc1", inner, hidden, true);
    list.linear(prefix + "mlp.linear_fc2", hidden, inner, true);
  }
  add_merger(list, vision, "model.visual.merger", hidden);
  for (std::size_t level = 0; level < vision.deepstack_indexes.size(); ++level) {
    add_merger(list, vision, fmt::format("model.visual.deepstack_merger_list.{}", level), hidden * vision.merge_unit());
  }
}

}  // namespace

std::vector<TensorSpec> expected_tensors(const ModelConfig& config) {
  TensorList list(config);
  const TextConfig& text = config.text;
  list.plain("model.language_model.embed_tokens.weight", {text.vocab_size, text.hidden_size});
  for (int layer = 0; layer < text.num_layers; ++layer) add_text_layer(list, text, layer);
  list.plain("model.language_model.norm.weight", {text.hidden_size});
  if (!text.tie_word_embeddings) list.linear("lm_head", text.vocab_size, text.hidden_size);
  add_vision(list, config.vision);
  return list.take();
}

}  // namespace qwenbench::model
