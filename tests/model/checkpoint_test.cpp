#include <fmt/ranges.h>

#include <functional>
#include <set>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;
using nlohmann::json;

namespace {

std::string describe(const TensorSpec& spec) {
  return fmt::format("{} {} {}", spec.name, safetensors_name(spec.dtype), fmt::join(spec.shape, " "));
}

/// Name, dtype and shape of every tensor that lies in the folder's files.
std::set<std::string> tensors_on_disk(const std::filesystem::path& folder) {
  std::set<std::string> out;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".safetensors") continue;
    const SafetensorsFile safetensors(file.path());
    for (const auto& [name, entry] : safetensors.header().tensors)
      out.insert(describe({name, entry.dtype, entry.shape}));
  }
  return out;
}

std::set<std::string> tensors_expected(const std::filesystem::path& folder) {
  std::set<std::string> out;
  for (const TensorSpec& spec : expected_tensors(open_checkpoint(folder)->config()))
    CHECK(out.insert(describe(spec)).second);
  return out;
}

void copy_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

}  // namespace

TEST_CASE("checkpoint: expected_tensors lists exactly what Transformers and compressed-tensors write") {
  for (const char* name : {"hf-bf16-sharded", "hf-tied", "hf-pack-quantized"}) {
    CAPTURE(name);
    CHECK(tensors_expected(kFixtures / name) == tensors_on_disk(kFixtures / name));
  }
}

TEST_CASE("checkpoint: expected_tensors of the other forms, by hand") {
  ModelConfig config = read_model_config(kFixtures / "hf-bf16-sharded");
  const auto shape_of = [&](const std::string& name) {
    for (const TensorSpec& spec : expected_tensors(config)) {
      if (spec.name == name) return describe(spec).substr(name.size() + 1);
    }
    return std::string("none");
  };
  const std::string k_proj = "model.language_model.layers.1.self_attn.k_proj.";  // [64, 64]
  config.quantization.format = QuantizationConfig::Format::kAwqGemm;
  config.quantization.group_size = 32;
  config.quantization.ignore = {"visual"};
  CHECK(shape_of(k_proj + "qweight") == "I32 64 8");
  CHECK(shape_of(k_proj + "qzeros") == "I32 2 8");
  CHECK(shape_of(k_proj + "scales") == "F16 2 64");
  CHECK(shape_of("lm_head.weight") == "BF16 256 64");
  CHECK(shape_of("model.visual.blocks.0.attn.qkv.weight") == "BF16 48 16");
  config.quantization = {};
  config.quantization.format = QuantizationConfig::Format::kFp8Block;
  CHECK(shape_of(k_proj + "weight") == "F8_E4M3 64 64");
  CHECK(shape_of(k_proj + "weight_scale_inv") == "BF16 1 1");
  config.quantization = {};
  config.quantization.format = QuantizationConfig::Format::kPackQuantized;
  config.quantization.group_size = 32;
  config.quantization.symmetric = true;
  config.quantization.activation_order = true;
  config.quantization.ignore = {"re:.*visual"};
  CHECK(shape_of(k_proj + "weight_zero_point") == "none");
  CHECK(shape_of(k_proj + "weight_g_idx") == "I32 64");
  CHECK(shape_of("lm_head.weight_packed") == "I32 256 8");
  config.quantization.ignore = {};
  CHECK_CONTAINS(error_of([&] { (void)expected_tensors(config); }),
                 "group_size 32 does not divide the 16 inputs of model.visual.blocks.0.attn.qkv");
}

TEST_CASE("checkpoint: tensors come from shards, with their shapes checked") {
  const auto checkpoint = open_checkpoint(kFixtures / "hf-bf16-sharded");
  const std::int64_t shape[] = {64};
  const TensorView norm = checkpoint->tensor("model.language_model.norm.weight", shape);
  CHECK(norm.to_floats() == std::vector<float>(64, 1.0f));
  CHECK(checkpoint->has("lm_head.weight"));
  CHECK_FALSE(checkpoint->has("lm_head.weigh"));
  CHECK_FALSE(checkpoint->is_dummy());
  CHECK_FALSE(checkpoint->config().text.tie_word_embeddings);
  CHECK(checkpoint->kv_scales().empty());
  const std::int64_t wrong[] = {65};
  CHECK_CONTAINS(
      error_of([&] { (void)checkpoint->tensor("model.language_model.norm.weight", wrong); }),
      "of-00004.safetensors: tensor model.language_model.norm.weight has shape [64], config.json asks for [65]");
  CHECK_CONTAINS(error_of([&] { (void)checkpoint->tensor("model.language_model.norn.weight", shape); }),
                 "missing (the nearest name is model.language_model.norm.weight)");
  std::size_t bytes = 0;
  for (const TensorSpec& spec : expected_tensors(checkpoint->config()))
    bytes += TensorView{spec.dtype, spec.shape, nullptr}.bytes();
  CHECK(checkpoint->total_bytes() == bytes);
  CHECK(bytes == load_json(kFixtures / "hf-bf16-sharded" / "model.safetensors.index.json")["metadata"]["total_size"]);
}

TEST_CASE("checkpoint: without an lm_head the embeddings are tied, whatever the config says") {
  CHECK(open_checkpoint(kFixtures / "hf-tied")->config().text.tie_word_embeddings);
  TemporaryFolder folder;
  copy_folder(kFixtures / "hf-tied", folder.path());
  json config = load_json(folder.path() / "config.json");
  config["tie_word_embeddings"] = false;
  write_file_atomically(folder.path() / "config.json", config.dump());
  CHECK(open_checkpoint(folder.path())->config().text.tie_word_embeddings);
}

TEST_CASE("checkpoint: a broken index") {
  const std::string name = "lm_head.weight";
  const auto error_with = [&](const std::function<void(json&)>& change) {
    TemporaryFolder folder;
    copy_folder(kFixtures / "hf-bf16-sharded", folder.path());
    json index = load_json(folder.path() / "model.safetensors.index.json");
    change(index);
    write_file_atomically(folder.path() / "model.safetensors.index.json", index.dump());
    return error_of([&] { (void)open_checkpoint(folder.path()); });
  };
  CHECK_CONTAINS(error_with([](json& index) { index.erase("weight_map"); }), "weight_map: missing");
  CHECK_CONTAINS(error_with([](json& index) { index["weight_map"] = json::object(); }), "weight_map is empty");
  CHECK_CONTAINS(error_with([](json& index) { index["weight_map"] = json::array(); }), "must be a JSON object");
  CHECK_CONTAINS(error_with([&](json& index) { index["weight_map"][name] = 3; }),
                 "weight_map.lm_head.weight: must be a file name");
  CHECK_CONTAINS(error_with([&](json& index) { index["weight_map"][name] = "none.safetensors"; }),
                 "names none.safetensors, which is missing");
  CHECK_CONTAINS(error_with([&](json& index) { index["weight_map"]["x.weight"] = index["weight_map"][name]; }),
                 "tensor x.weight is not in");
  for (const char* path : {"../hf-tied/model.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors"}) {
    CHECK_CONTAINS(error_with([&](json& index) { index["weight_map"][name] = path; }),
                   "is not the name of a file in this folder");
  }
  CHECK_CONTAINS(error_with([](json& index) { index = json::array(); }), "must be a JSON object");
}

TEST_CASE("checkpoint: two shards with one tensor") {
  TemporaryFolder folder;
  std::filesystem::copy(kFixtures / "hf-tied" / "config.json", folder.path() / "config.json");
  write_safetensors(folder.path() / "a.safetensors",
                    {item<float>("x", DType::kF32, {1}, {1}), item<float>("a", DType::kF32, {1}, {1})});
  write_safetensors(folder.path() / "b.safetensors",
                    {item<float>("x", DType::kF32, {1}, {2}), item<float>("b", DType::kF32, {1}, {1})});
  const std::int64_t shape[] = {1};
  write_file_atomically(folder.path() / "model.safetensors.index.json",
                        R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors", "x": "b.safetensors"}})");
  CHECK(open_checkpoint(folder.path())->tensor("x", shape).to_floats() == std::vector<float>{2});
  write_file_atomically(folder.path() / "model.safetensors.index.json",
                        R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})");
  CHECK_CONTAINS(error_of([&] { (void)open_checkpoint(folder.path()); }), "tensor x lies in two files");
}

TEST_CASE("checkpoint: no weights, and a shard cut short") {
  TemporaryFolder folder;
  copy_folder(kFixtures / "hf-tied", folder.path());
  std::filesystem::resize_file(folder.path() / "model.safetensors", 100'000);
  CHECK_CONTAINS(error_of([&] { (void)open_checkpoint(folder.path()); }), "cut short");
  std::filesystem::remove(folder.path() / "model.safetensors");
  CHECK_CONTAINS(error_of([&] { (void)open_checkpoint(folder.path()); }), "no weights");
}

TEST_CASE("checkpoint: the fingerprint knows shapes, values and config, not shards or KV scales") {
  const std::string original = open_checkpoint(kFixtures / "hf-tied")->fingerprint();
  CHECK(original.size() == 64);
  CHECK(original == open_checkpoint(kFixtures / "hf-tied")->fingerprint());
  TemporaryFolder folder;
  copy_folder(kFixtures / "hf-tied", folder.path());
  const auto fingerprint = [&] { return open_checkpoint(folder.path())->fingerprint(); };
  json config = load_json(folder.path() / "config.json");
  write_file_atomically(folder.path() / "config.json", config.dump());  // other white space
  CHECK(fingerprint() == original);

  std::vector<SafetensorsItem> scales{
      item<float>("model.language_model.layers.0.self_attn.k_scale", DType::kF32, {1}, {0.5f})};
  write_safetensors(folder.path() / "scales.safetensors", scales);
  json index;
  const SafetensorsFile base(folder.path() / "model.safetensors");
  for (const auto& [name, entry] : base.header().tensors) index["weight_map"][name] = "model.safetensors";
  index["weight_map"][scales[0].name] = "scales.safetensors";
  write_file_atomically(folder.path() / "model.safetensors.index.json", index.dump());
  CHECK(fingerprint() == original);

  config["text_config"]["rms_norm_eps"] = 1e-5;
  write_file_atomically(folder.path() / "config.json", config.dump());
  CHECK(fingerprint() != original);

  TemporaryFolder other;
  copy_folder(kFixtures / "hf-tied", other.path());
  std::string bytes = read_file(other.path() / "model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);  // the same shapes, one other weight
  write_file_atomically(other.path() / "model.safetensors", bytes);
  CHECK(open_checkpoint(other.path())->fingerprint() != original);
  CHECK(original != open_checkpoint(kFixtures / "hf-bf16-sharded")->fingerprint());
}

TEST_CASE("checkpoint: bytes of the 32B model's three forms, by hand") {
  // Text Linears: 64 layers of q, o 8192 x 5120, k, v 1024 x 5120, gate, up, down 25600 x 5120.
  const std::int64_t linear = 64ll * 5120 * (2 * 8192 + 2 * 1024 + 3 * 25600), shapes = 64 * 7 * 2 * 8;
  CHECK(linear == 31'205'621'760);
  // Embedding, head and text norms; then the vision tower: patches, positions, 27 blocks, four mergers. All BF16.
  const std::int64_t text = 2 * 151936ll * 5120 + 64 * (2 * 5120 + 2 * 128) + 5120;
  const std::int64_t block = 4 * 1152 + 1152ll * 3456 + 3456 + 1152 * 1152 + 1152 + 2 * 1152ll * 4304 + 4304 + 1152;
  const std::int64_t merger = 4608ll * 4608 + 4608 + 4608ll * 5120 + 5120;
  const std::int64_t vision = 1152 * 1536 + 1152 + 2304 * 1152 + 27 * block + 4 * merger + 2 * 1152 + 3 * 2 * 4608;
  const std::int64_t dense = 2 * (text + vision);
  const auto bytes_of = [](const char* name) {
    std::size_t bytes = 0;
    for (const TensorSpec& spec :
         expected_tensors(read_model_config(std::filesystem::path("../datasets/models") / name))) {
      bytes += TensorView{spec.dtype, spec.shape, nullptr}.bytes();
    }
    return static_cast<std::int64_t>(bytes);
  };
  CHECK(bytes_of("qwen3-vl-32b-awq") == dense + linear / 2 + linear / 32 * 2 + linear / 32 / 2 + shapes);
  CHECK(bytes_of("qwen3-vl-32b-awq-g128") == dense + linear / 2 + linear / 128 * 2 + linear / 128 / 2 + shapes);
  CHECK(bytes_of("qwen3-vl-32b-fp8") == dense + linear + linear / (128 * 128) * 2);
}
