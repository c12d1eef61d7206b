#include "model/config.h"

#include <functional>

#include "model/model_files.h"

using namespace qwenbench;
using namespace qwenbench::model;
using nlohmann::json;

namespace {

const json kQuantized = load_json(kFixtures / "hf-pack-quantized" / "config.json");

/// The config of a folder with the fixture's config.json changed by `change`, and perhaps other files.
ModelConfig read_changed(const std::function<void(json&)>& change,
                         const std::vector<std::pair<std::string, std::string>>& files = {}) {
  TemporaryFolder folder;
  json config = kQuantized;
  change(config);
  write_file_atomically(folder.path() / "config.json", config.dump());
  for (const auto& [name, content] : files) write_file_atomically(folder.path() / name, content);
  return read_model_config(folder.path());
}

void nothing(json&) {}

}  // namespace

TEST_CASE("config: as Transformers v5 writes it") {
  const ModelConfig config = read_model_config(kFixtures / "hf-pack-quantized");
  CHECK(config.text.hidden_size == 64);
  CHECK(config.text.num_layers == 2);
  CHECK(config.text.num_heads == 4);
  CHECK(config.text.num_kv_heads == 2);
  CHECK(config.text.head_dim == 32);
  CHECK(config.text.intermediate_size == 96);
  CHECK(config.text.vocab_size == 256);
  CHECK(config.text.max_position_embeddings == 512);
  CHECK(config.text.rms_norm_eps == 1e-6f);
  CHECK(config.text.rope_theta == 5e6);
  CHECK(config.text.mrope_section == std::array<int, 3>{6, 5, 5});
  CHECK_FALSE(config.text.tie_word_embeddings);
  CHECK(config.vision.depth == 3);
  CHECK(config.vision.head_dim() == 8);
  CHECK(config.vision.patch_dim() == 96);
  CHECK(config.vision.merge_unit() == 4);
  CHECK(config.vision.num_position_embeddings == 16);
  CHECK(config.vision.deepstack_indexes == std::vector<int>{0, 2});
  CHECK(config.dtype == DType::kBF16);
  CHECK(config.image_token_id == 250);
  CHECK(config.vision_end_token_id == 253);
  CHECK(config.generation.eos_token_ids == std::vector<std::int32_t>{255, 254});
  CHECK(config.image_processor.patch_size == 4);
  CHECK(config.image_processor.min_pixels == 65536);
  CHECK(config.quantization.format == QuantizationConfig::Format::kPackQuantized);
  CHECK(config.quantization.group_size == 32);
  CHECK_FALSE(config.quantization.symmetric);
  CHECK(config.quantization.describe() == "compressed-tensors w4a16 g32 asymmetric");
}

TEST_CASE("config: as Transformers v4 wrote it") {
  const ModelConfig config = read_changed([](json& root) {
    json& text = root["text_config"];
    text["rope_scaling"] = {{"mrope_interleaved", true}, {"mrope_section", {8, 4, 4}}, {"type", "mrope"}};
    text["rope_theta"] = 1e6;
    text.erase("rope_parameters");
    root["torch_dtype"] = "float16";
    root.erase("dtype");
    root.erase("tie_word_embeddings");
    text["tie_word_embeddings"] = true;
    text["eos_token_id"] = 7;
  });
  CHECK(config.text.rope_theta == 1e6);
  CHECK(config.text.mrope_section == std::array<int, 3>{8, 4, 4});
  CHECK(config.dtype == DType::kF16);
  CHECK(config.text.tie_word_embeddings);
  CHECK(config.generation.eos_token_ids == std::vector<std::int32_t>{7});
}

TEST_CASE("config: the top level decides about tied embeddings") {
  CHECK_FALSE(
      read_changed([](json& root) { root["text_config"]["tie_word_embeddings"] = true; }).text.tie_word_embeddings);
}

TEST_CASE("config: one eos id, and the image processor in either file") {
  const std::string processor =
      R"({"size": {"shortest_edge": 1024, "longest_edge": 4096}, "patch_size": 4, "temporal_patch_size": 2,
    "merge_size": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]})";
  const ModelConfig config = read_changed(
      nothing, {{"generation_config.json", R"({"eos_token_id": 9})"}, {"preprocessor_config.json", processor}});
  CHECK(config.generation.eos_token_ids == std::vector<std::int32_t>{9});
  CHECK(config.image_processor.min_pixels == 1024);
  CHECK(config.image_processor.max_pixels == 4096);
  CHECK(config.image_processor.mean == std::array<float, 3>{0.1f, 0.2f, 0.3f});
  CHECK(config.image_processor.std == std::array<float, 3>{1, 2, 4});
  const ModelConfig v5 = read_changed(nothing, {{"processor_config.json", "{\"image_processor\": " + processor + "}"}});
  CHECK(v5.image_processor.max_pixels == 4096);
  CHECK(read_changed(nothing, {{"preprocessor_config.json", R"({"min_pixels": 5, "max_pixels": 6})"}})
            .image_processor.max_pixels == 6);
}

TEST_CASE("config: quantization dialects") {
  const auto quantized = [](const json& quantization) {
    return read_changed([&](json& root) { root["quantization_config"] = quantization; }).quantization;
  };
  const auto awq = quantized({{"quant_method", "awq"},
                              {"bits", 4},
                              {"group_size", 128},
                              {"version", "GEMM"},
                              {"zero_point", true},
                              {"modules_to_not_convert", {"visual"}}});
  CHECK(awq.describe() == "awq gemm w4a16 g128 asymmetric");
  CHECK(awq.ignores("model.visual.blocks.0.attn.qkv"));
  CHECK(awq.ignores("lm_head"));
  CHECK_FALSE(awq.ignores("model.language_model.layers.0.mlp.up_proj"));
  const auto fp8 = quantized({{"quant_method", "fp8"},
                              {"fmt", "e4m3"},
                              {"activation_scheme", "dynamic"},
                              {"weight_block_size", {128, 128}},
                              {"modules_to_not_convert", {"lm_head", "model.visual.merger.linear_fc1", "layers.1"}}});
  CHECK(fp8.describe() == "fp8 e4m3 block 128x128");
  CHECK(fp8.ignores("model.visual.merger.linear_fc1"));
  CHECK_FALSE(fp8.ignores("model.visual.merger.linear_fc2"));
  CHECK(fp8.ignores("model.language_model.layers.1.mlp.up_proj"));
  CHECK_FALSE(fp8.ignores("model.language_model.layers.11.mlp.up_proj"));
  json compressed = kQuantized["quantization_config"];
  compressed["config_groups"]["group_0"]["weights"]["symmetric"] = true;
  compressed["config_groups"]["group_0"]["weights"]["group_size"] = 128;
  compressed["config_groups"]["group_0"]["weights"]["actorder"] = "group";
  compressed["ignore"] = {"lm_head", "re:.*visual.*", "re:model\\.(a|b)"};
  compressed["kv_cache_scheme"] = {{"num_bits", 8}};
  const auto packed = quantized(compressed);
  CHECK(packed.describe() == "compressed-tensors w4a16 g128 symmetric actorder");
  CHECK(packed.activation_order);
  CHECK(packed.kv_cache_scheme);
  CHECK(packed.ignores("model.visual.merger.linear_fc1"));
  CHECK(packed.ignores("lm_head"));
  CHECK_FALSE(packed.ignores("lm_head2"));
  CHECK(packed.ignores("model.bc"));  // re.match: only the start is anchored
  CHECK_FALSE(packed.ignores("x.model.bc"));
  CHECK_FALSE(read_changed([](json& root) { root.erase("quantization_config"); }).quantization.ignores("x"));
}

TEST_CASE("config: a regular expression that backtracks without end does not hang") {
  const ModelConfig config = read_changed([](json& root) { root["quantization_config"]["ignore"] = {"re:(a*)*b"}; });
  CHECK_FALSE(config.quantization.ignores(std::string(64, 'a')));
}

namespace {

struct BadConfig {
  const char* pointer;  // JSON pointer of the value
  json value;           // discarded = erase
  const char* message;
};

const json kErase = json(json::value_t::discarded);

}  // namespace

TEST_CASE("config: bad values name the file and the key") {
  const BadConfig bad[] = {
      {"/model_type", "qwen2_vl", "model_type: \"qwen2_vl\" is not supported"},
      {"/model_type", kErase, "model_type: missing"},
      {"/text_config", kErase, "text_config: missing"},
      {"/text_config", 3, "text_config: must be a JSON object, is number"},
      {"/text_config/hidden_size", kErase, "text_config.hidden_size: missing"},
      {"/text_config/hidden_size", nullptr, "text_config.hidden_size: missing"},
      {"/text_config/hidden_size", 0, "text_config.hidden_size: must be between 1 and 1048576, is 0"},
      {"/text_config/hidden_size", -64, "is -64"},
      {"/text_config/hidden_size", 64.5, "must be an integer, is 64.5"},
      {"/text_config/hidden_size", "64", "must be an integer, is \"64\""},
      {"/text_config/hidden_size", 18446744073709551615u, "is 18446744073709551615"},
      {"/text_config/hidden_size", 1 << 21, "must be between"},
      {"/text_config/head_dim", kErase, "text_config.head_dim: missing"},
      {"/text_config/num_key_value_heads", 3,
       "text_config.num_key_value_heads: 3 does not divide num_attention_heads 4"},
      {"/text_config/rms_norm_eps", "x", "text_config.rms_norm_eps: must be a number, is string"},
      {"/text_config/rms_norm_eps", -1, "must be between 0 and 1"},
      {"/text_config/hidden_act", "gelu", "text_config.hidden_act: only \"silu\""},
      {"/text_config/attention_bias", true, "text_config.attention_bias"},
      {"/text_config/rope_parameters", kErase, "text_config.rope_scaling: missing"},
      {"/text_config/rope_parameters/rope_theta", kErase, "text_config.rope_theta: missing"},
      {"/text_config/rope_parameters/rope_theta", 0, "rope_theta: must be greater than 1"},
      {"/text_config/rope_parameters/rope_type", "yarn",
       "text_config.rope_parameters.rope_type: \"yarn\" is not supported"},
      {"/text_config/rope_parameters/mrope_interleaved", false, "mrope_interleaved: false"},
      {"/text_config/rope_parameters/mrope_section",
       {6, 5, 6},
       "mrope_section: sums to 17, must be half of head_dim 32"},
      {"/text_config/rope_parameters/mrope_section", {16}, "must hold three numbers"},
      {"/text_config/rope_parameters/mrope_section", {-1, 9, 8}, "mrope_section: must be between 0"},
      {"/text_config/rope_parameters/mrope_section", kErase, "sums to 64"},
      {"/tie_word_embeddings", 1, "tie_word_embeddings: must be true or false, is number"},
      {"/dtype", "int8", "dtype: \"int8\" is not one of"},
      {"/image_token_id", kErase, "image_token_id: missing"},
      {"/image_token_id", 256, "image_token_id: must be between 0 and 255, is 256"},
      {"/vision_config/num_heads", 3, "vision_config.num_heads: 3 does not divide hidden_size 16"},
      {"/vision_config/num_heads", 8, "heads of 2, not a multiple of 4"},
      {"/vision_config/patch_size", json::array({4, 8}), "the same on both axes"},
      {"/vision_config/patch_size", json::array(), "an empty list"},
      {"/vision_config/patch_size", 65, "more than 64"},
      {"/vision_config/num_position_embeddings", 17, "must be a square number"},
      {"/vision_config/out_hidden_size", 65, "is 65, must be text_config.hidden_size 64"},
      {"/vision_config/deepstack_visual_indexes", {0, 3}, "deepstack_visual_indexes: must be between 0 and 2, is 3"},
      {"/vision_config/deepstack_visual_indexes", {1, 1}, "must increase"},
      {"/vision_config/deepstack_visual_indexes", {0, 1, 2}, "more levels than the text model has layers"},
      {"/vision_config/hidden_act", "gelu", "only \"gelu_pytorch_tanh\""},
      {"/vision_config/rope_parameters/rope_theta", 5000, "must be 10000"},
      {"/quantization_config/quant_method", "gptq", "quantization_config.quant_method: \"gptq\" is not one of"},
      {"/quantization_config/quant_method", "awq", "quantization_config.bits: missing"},
      {"/quantization_config/quant_method", "fp8", "quantization_config.weight_block_size: missing"},
      {"/quantization_config/config_groups", json::object(), "must hold exactly one group"},
      {"/quantization_config/config_groups/group_0/format", "nvfp4-pack-quantized",
       "\"nvfp4-pack-quantized\" is not supported"},
      {"/quantization_config/config_groups/group_0/input_activations", json::object(),
       "input_activations: quantized activations"},
      {"/quantization_config/config_groups/group_0/targets", {"re:.*up_proj"}, "targets: only [\"Linear\"]"},
      {"/quantization_config/config_groups/group_0/weights/num_bits", 8, "weights.num_bits: 8 is not supported"},
      {"/quantization_config/config_groups/group_0/weights/strategy", "channel", "\"channel\" is not supported"},
      {"/quantization_config/config_groups/group_0/weights/group_size", 0, "group_size: must be between 8"},
      {"/quantization_config/config_groups/group_0/weights/group_size", 36, "group_size: must be a multiple of 8"},
      {"/quantization_config/ignore", {"re:("}, "ignore: \"re:(\" is not a regular expression"},
      {"/quantization_config/ignore", {1}, "ignore: must be a list of strings"},
  };
  for (const BadConfig& test : bad) {
    CAPTURE(test.pointer);
    CAPTURE(test.message);
    const std::string text = error_of([&] {
      read_changed([&](json& root) {
        const json::json_pointer pointer(test.pointer);
        if (test.value.is_discarded())
          root[pointer.parent_pointer()].erase(pointer.back());
        else
          root[pointer] = test.value;
      });
    });
    CHECK_CONTAINS(text, test.message);
    CHECK_CONTAINS(text, "config.json: ");
  }
}

TEST_CASE("config: files that are no JSON, or not what they should be") {
  TemporaryFolder folder;
  CHECK_CONTAINS(error_of([&] { (void)read_model_config(folder.path()); }), "has no config.json");
  const auto read = [&](const std::string& content) {
    write_file_atomically(folder.path() / "config.json", content);
    return error_of([&] { (void)read_model_config(folder.path()); });
  };
  CHECK_CONTAINS(read("{\"a\": "), "config.json: not JSON:");
  CHECK_CONTAINS(read("[1]"), "must be a JSON object, is array");
  CHECK_CONTAINS(read(""), "not JSON");
  CHECK_CONTAINS(read(std::string(1000, '[')), "nested deeper than 64");
  CHECK_CONTAINS(error_of([] {
                   read_changed(nothing, {{"generation_config.json", "{"}});
                 }),
                 "generation_config.json: not JSON");
  CHECK_CONTAINS(error_of([] {
                   read_changed(nothing, {{"generation_config.json", R"({"eos_token_id": "x"})"}});
                 }),
                 "generation_config.json: eos_token_id: must be an integer");
  CHECK_CONTAINS(error_of([] {
                   read_changed(nothing, {{"preprocessor_config.json", R"({"patch_size": 16})"}});
                 }),
                 "preprocessor_config.json: patch_size: is 16, but config.json's vision_config says 4");
  CHECK_CONTAINS(error_of([] {
                   read_changed(nothing, {{"preprocessor_config.json", R"({"image_std": [0, 1, 1]})"}});
                 }),
                 "greater than 0");
  CHECK_CONTAINS(
      error_of([] {
        read_changed(nothing, {{"preprocessor_config.json", R"({"size": {"shortest_edge": 9, "longest_edge": 8}})"}});
      }),
      "shortest_edge is greater");
}
