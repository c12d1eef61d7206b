#include "model/config.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "model/json_object.h"
#include "model/quantization_config.h"

namespace qwenbench::model {
namespace {

constexpr std::int64_t kMaxTokenId = 1 << 24;

void require(bool condition, const JsonObject& object, const char* key, const std::string& message) {
  if (!condition) object.fail(key, message);
}

/// rope_parameters is what Transformers v5 writes, rope_scaling (with rope_theta beside it) what v4 wrote.
void read_rope(const JsonObject& text, TextConfig& out) {
  const char* key = text.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const JsonObject rope = text.object(key);
  out.rope_theta = rope.has("rope_theta") ? rope.number("rope_theta") : text.number("rope_theta");
  if (!std::isfinite(out.rope_theta) || out.rope_theta <= 1.0) text.fail("rope_theta", "must be greater than 1");
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.has(type_key) ? rope.text(type_key) : "default";
  if (type != "default" && type != "mrope") {
    rope.fail(type_key, fmt::format("\"{}\" is not supported; Qwen3-VL uses \"default\"", one_line(type, 40)));
  }
  if (!rope.boolean_or("mrope_interleaved", true)) {
    rope.fail("mrope_interleaved", "false is not supported; Qwen3-VL interleaves the axes");
  }
  out.mrope_section = {24, 20, 20};  // what the reference implementation assumes where the key is absent
  if (rope.has("mrope_section")) {
    const auto section = rope.integers("mrope_section", 0, 1 << 16);
    require(section.size() == 3, rope, "mrope_section", "must hold three numbers");
    for (std::size_t axis = 0; axis < 3; ++axis) out.mrope_section[axis] = static_cast<int>(section[axis]);
  }
  const int pairs = out.mrope_section[0] + out.mrope_section[1] + out.mrope_section[2];
  require(2 * pairs == out.head_dim, rope, "mrope_section",
          fmt::format("sums to {}, must be half of head_dim {}", pairs, out.head_dim));
}

TextConfig read_text_config(const JsonObject& text) {
  TextConfig out;
  out.hidden_size = text.size("hidden_size");
  out.num_layers = text.size("num_hidden_layers");
  out.num_heads = text.size("num_attention_heads");
  out.num_kv_heads = text.size_or("num_key_value_heads", out.num_heads);
  out.head_dim = text.size("head_dim");
  out.intermediate_size = text.size("intermediate_size");
  out.vocab_size = text.size("vocab_size");
  out.max_position_embeddings = static_cast<int>(text.integer("max_position_embeddings", 1, 1 << 30));
  out.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps"));
  require(out.rms_norm_eps >= 0 && out.rms_norm_eps < 1, text, "rms_norm_eps", "must be between 0 and 1");
  require(out.num_layers <= 4096, text, "num_hidden_layers", "more than 4096 layers are not supported");
  require(out.head_dim <= 4096, text, "head_dim", "more than 4096 is not supported");
  require(out.num_heads <= 4096, text, "num_attention_heads", "more than 4096 heads are not supported");
  require(out.num_heads % out.num_kv_heads == 0, text, "num_key_value_heads",
          fmt::format("{} does not divide num_attention_heads {}", out.num_kv_heads, out.num_heads));
  if (text.has("hidden_act") && text.text("hidden_act") != "silu")
    text.fail("hidden_act", "only \"silu\" is supported");
  if (text.boolean_or("attention_bias", false)) text.fail("attention_bias", "true is not supported");
  read_rope(text, out);
  return out;
}

/// Some versions of HF write a square patch as a list.
int read_square(const JsonObject& object, const char* key) {
  if (!object.at(key).is_array()) return object.size(key);
  const auto sides = object.integers(key, 1, 1 << 12);
  if (sides.empty()) object.fail(key, "is an empty list");
  for (const std::int64_t side : sides) require(side == sides[0], object, key, "must be the same on both axes");
  return static_cast<int>(sides[0]);
}

void check_vision(const JsonObject& vision, const VisionConfig& config) {
  require(config.depth <= 4096, vision, "depth", "more than 4096 blocks are not supported");
  require(config.hidden_size % config.num_heads == 0, vision, "num_heads",
          fmt::format("{} does not divide hidden_size {}", config.num_heads, config.hidden_size));
  require(config.head_dim() % 4 == 0, vision, "num_heads",
          fmt::format("gives heads of {}, not a multiple of 4 (the 2-D rotary embedding)", config.head_dim()));
  for (const auto& [key, value] : {std::pair("patch_size", config.patch_size),
                                   {"in_channels", config.in_channels},
                                   {"temporal_patch_size", config.temporal_patch_size}}) {
    require(value <= 64, vision, key, "more than 64 is not supported");
  }
  require(config.spatial_merge_size <= 8, vision, "spatial_merge_size", "more than 8 is not supported");
  const int side = static_cast<int>(std::lround(std::sqrt(static_cast<double>(config.num_position_embeddings))));
  require(side * side == config.num_position_embeddings, vision, "num_position_embeddings", "must be a square number");
  if (vision.has("hidden_act") && vision.text("hidden_act") != "gelu_pytorch_tanh") {
    vision.fail("hidden_act", "only \"gelu_pytorch_tanh\" is supported");
  }
  if (vision.has("rope_parameters")) {
    const JsonObject rope = vision.object("rope_parameters");
    if (rope.has("rope_theta") && rope.number("rope_theta") != 10000.0) rope.fail("rope_theta", "must be 10000");
  }
}

VisionConfig read_vision_config(const JsonObject& vision, const TextConfig& text) {
  VisionConfig out;
  out.depth = vision.size("depth");
  out.hidden_size = vision.size("hidden_size");
  out.intermediate_size = vision.size("intermediate_size");
  out.num_heads = vision.size("num_heads");
  out.in_channels = vision.size_or("in_channels", out.in_channels);
  out.patch_size = read_square(vision, "patch_size");
  out.temporal_patch_size = read_square(vision, "temporal_patch_size");
  out.spatial_merge_size = vision.size("spatial_merge_size");
  out.num_position_embeddings = vision.size("num_position_embeddings");
  out.out_hidden_size = vision.size("out_hidden_size");
  require(out.out_hidden_size == text.hidden_size, vision, "out_hidden_size",
          fmt::format("is {}, must be text_config.hidden_size {}", out.out_hidden_size, text.hidden_size));
  std::int64_t previous = -1;
  for (const std::int64_t index : vision.integers("deepstack_visual_indexes", 0, out.depth - 1)) {
    require(index > previous, vision, "deepstack_visual_indexes", "must increase");
    out.deepstack_indexes.push_back(static_cast<int>(index));
    previous = index;
  }
  require(out.deepstack_indexes.size() <= static_cast<std::size_t>(text.num_layers), vision, "deepstack_visual_indexes",
          fmt::format("more levels than the text model has layers ({})", text.num_layers));
  check_vision(vision, out);
  return out;
}

DType read_dtype(const JsonObject& root, const JsonObject& text) {
  for (const JsonObject* object : {&root, &text}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (!object->has(key)) continue;
      const std::string name = object->text(key);
      if (name == "bfloat16") return DType::kBF16;
      if (name == "float16") return DType::kF16;
      if (name == "float32") return DType::kF32;
      object->fail(key, fmt::format("\"{}\" is not one of bfloat16, float16, float32", one_line(name, 40)));
    }
  }
  return DType::kBF16;
}

void check_architecture(const JsonObject& root) {
  const std::string type = root.text("model_type");
  if (type != "qwen3_vl") {
    root.fail("model_type", fmt::format("\"{}\" is not supported; this program runs \"qwen3_vl\"", one_line(type, 40)));
  }
}

std::vector<std::int32_t> token_ids(const JsonObject& object, const char* key) {
  std::vector<std::int32_t> ids;
  if (object.at(key).is_array()) {
    for (const std::int64_t id : object.integers(key, 0, kMaxTokenId)) ids.push_back(static_cast<std::int32_t>(id));
  } else {
    ids.push_back(static_cast<std::int32_t>(object.integer(key, 0, kMaxTokenId)));
  }
  return ids;
}

/// generation_config.json decides; older checkpoints carry the id in config.json only.
GenerationConfig read_generation(const std::filesystem::path& directory, const JsonObject& root,
                                 const JsonObject& text) {
  GenerationConfig out;
  const auto path = directory / "generation_config.json";
  if (std::filesystem::exists(path)) {
    const nlohmann::json json = parse_json_file(path);
    const JsonObject object(json, path.string());
    if (object.has("eos_token_id")) {
      out.eos_token_ids = token_ids(object, "eos_token_id");
      return out;
    }
  }
  if (root.has("eos_token_id"))
    out.eos_token_ids = token_ids(root, "eos_token_id");
  else if (text.has("eos_token_id"))
    out.eos_token_ids = token_ids(text, "eos_token_id");
  return out;
}

std::array<float, 3> read_rgb(const JsonObject& object, const char* key, std::array<float, 3> fallback) {
  if (!object.has(key)) return fallback;
  const auto values = object.numbers(key);
  require(values.size() == 3, object, key, "must hold three numbers");
  std::array<float, 3> out{};
  for (std::size_t channel = 0; channel < 3; ++channel) out[channel] = static_cast<float>(values[channel]);
  return out;
}

void read_image_processor(const JsonObject& object, const VisionConfig& vision, ImageProcessorConfig& out) {
  constexpr std::int64_t kMaxPixels = std::int64_t{1} << 40;
  if (object.has("size")) {
    const JsonObject size = object.object("size");
    if (size.has("shortest_edge")) out.min_pixels = size.integer("shortest_edge", 1, kMaxPixels);
    if (size.has("longest_edge")) out.max_pixels = size.integer("longest_edge", 1, kMaxPixels);
  }
  if (object.has("min_pixels")) out.min_pixels = object.integer("min_pixels", 1, kMaxPixels);
  if (object.has("max_pixels")) out.max_pixels = object.integer("max_pixels", 1, kMaxPixels);
  require(out.min_pixels <= out.max_pixels, object, "size", "shortest_edge is greater than longest_edge");
  for (const auto& [key, value] : {std::pair("patch_size", vision.patch_size),
                                   {"temporal_patch_size", vision.temporal_patch_size},
                                   {"merge_size", vision.spatial_merge_size}}) {
    if (object.has(key) && object.size(key) != value) {
      object.fail(key, fmt::format("is {}, but config.json's vision_config says {}", object.size(key), value));
    }
  }
  out.mean = read_rgb(object, "image_mean", out.mean);
  out.std = read_rgb(object, "image_std", out.std);
  for (const float std : out.std) require(std > 0, object, "image_std", "must be greater than 0");
}

/// preprocessor_config.json, or the same inside processor_config.json, where Transformers v5 writes it.
ImageProcessorConfig read_image_processor(const std::filesystem::path& directory, const VisionConfig& vision) {
  ImageProcessorConfig out;
  out.patch_size = vision.patch_size;
  out.temporal_patch_size = vision.temporal_patch_size;
  out.merge_size = vision.spatial_merge_size;
  if (const auto path = directory / "preprocessor_config.json"; std::filesystem::exists(path)) {
    const nlohmann::json json = parse_json_file(path);
    read_image_processor(JsonObject(json, path.string()), vision, out);
  } else if (const auto v5_path = directory / "processor_config.json"; std::filesystem::exists(v5_path)) {
    const nlohmann::json json = parse_json_file(v5_path);
    const JsonObject object(json, v5_path.string());
    if (object.has("image_processor")) read_image_processor(object.object("image_processor"), vision, out);
  }
  return out;
}

std::int32_t special_id(const JsonObject& root, const char* key, int vocab_size) {
  return static_cast<std::int32_t>(root.integer(key, 0, vocab_size - 1));
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  if (!std::filesystem::exists(path)) {
    throw InputError(fmt::format("{} has no config.json: not a model directory", directory.string()));
  }
  const nlohmann::json json = parse_json_file(path);
  const JsonObject root(json, path.string());
  check_architecture(root);
  const JsonObject text = root.object("text_config");
  ModelConfig config;
  config.text = read_text_config(text);
  // Where both levels speak, the top one decides: the inner may only repeat a class default.
  config.text.tie_word_embeddings =
      root.boolean_or("tie_word_embeddings", text.boolean_or("tie_word_embeddings", false));
  config.vision = read_vision_config(root.object("vision_config"), config.text);
  config.dtype = read_dtype(root, text);
  if (root.has("quantization_config"))
    config.quantization = read_quantization_config(root.object("quantization_config"));
  config.image_token_id = special_id(root, "image_token_id", config.text.vocab_size);
  config.video_token_id = special_id(root, "video_token_id", config.text.vocab_size);
  config.vision_start_token_id = special_id(root, "vision_start_token_id", config.text.vocab_size);
  config.vision_end_token_id = special_id(root, "vision_end_token_id", config.text.vocab_size);
  config.generation = read_generation(directory, root, text);
  config.image_processor = read_image_processor(directory, config.vision);
  return config;
}

}  // namespace qwenbench::model
