#include "calibration/scale_export.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "calibration/scale_file.h"
#include "model/model_files.h"
#include "model/safetensors.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::calibration;
using model::error_of;

namespace {

const std::filesystem::path kFixtures = "fixtures/checkpoints";
constexpr const char* kFingerprint = "0123456789abcdef";

/// Of the fixtures' model: two KV heads.
ScaleSet example(bool per_head, int layers = 2) {
  ScaleSet set;
  set.method = "absmax";
  set.granularity = per_head ? "head" : "tensor";
  set.layers = {{{0.5f}, {0.25f}, {}, {}}, {{0.125f}, {1.0f / 3}, {}, {}}};
  if (per_head) set.layers[1].v = {1.0f / 3, 7.0f};
  if (layers == 1) set.layers.erase(set.layers.begin());
  return set;
}

struct Exported {
  model::TemporaryFolder folder;
  std::filesystem::path path;
  std::vector<std::string> losses;

  Exported(ExportFormat format, const std::string& fixture, bool per_head = false) {
    path = export_path(format, folder.path() / "s.json");
    const model::ModelConfig config = model::read_model_config(kFixtures / fixture);
    losses = export_scales(
        format, {example(per_head, config.text.num_layers), config, kFixtures / fixture, kFingerprint, 2}, path);
  }
};

}  // namespace

TEST_CASE("compressed-tensors: the overlay opens as the same model, with scales") {
  for (const std::string fixture : {"hf-bf16-sharded", "hf-pack-quantized", "hf-tied"}) {
    for (const bool per_head : {false, true}) {
      CAPTURE(fixture);
      const Exported exported(ExportFormat::kCompressedTensors, fixture, per_head);
      const auto base = model::open_checkpoint(kFixtures / fixture), overlay = model::open_checkpoint(exported.path);
      CHECK(base->kv_scales().empty());
      const auto scales = overlay->kv_scales();
      REQUIRE(scales.size() == (fixture == "hf-tied" ? 1 : 2));
      CHECK(scales.back().k == std::vector<float>(per_head ? 2 : 1, 0.125f));
      CHECK(scales.back().v == (per_head ? std::vector<float>{1.0f / 3, 7.0f} : std::vector<float>{1.0f / 3}));
      CHECK(overlay->fingerprint() == base->fingerprint());
      const auto config = model::load_json(exported.path / "config.json");
      const auto& scheme = config["quantization_config"]["kv_cache_scheme"];
      CHECK(scheme["strategy"] == (per_head ? "attn_head" : "tensor"));
      CHECK(scheme["num_bits"] == 8);
      CHECK(scheme["type"] == "float");
      // What the loader of vLLM needs: the index names the file of every tensor.
      const auto index = model::load_json(exported.path / "model.safetensors.index.json");
      CHECK(index["weight_map"]["model.language_model.layers.0.self_attn.v_scale"] == "kv_scales.safetensors");
      for (const auto& [name, file] : index["weight_map"].items()) {
        REQUIRE(std::filesystem::exists(exported.path / file.get<std::string>()));
      }
    }
  }
}

TEST_CASE("a second export replaces the first; anything else is left alone") {
  const Exported exported(ExportFormat::kCompressedTensors, "hf-pack-quantized");
  const model::ModelConfig config = model::read_model_config(kFixtures / "hf-pack-quantized");
  ScaleSet other = example(false);
  other.layers[0].k = {9.0f};
  export_scales(ExportFormat::kCompressedTensors, {other, config, kFixtures / "hf-pack-quantized", kFingerprint, 1},
                exported.path);
  CHECK(model::open_checkpoint(exported.path)->kv_scales()[0].k == std::vector<float>{9.0f});
  std::filesystem::remove(exported.path / "kv_scales.safetensors");
  CHECK_CONTAINS(error_of([&] { check_export(ExportFormat::kCompressedTensors, config, "tensor", exported.path); }),
                 "is no earlier export");
  // Of an export that failed nothing is left.
  const auto at = exported.folder.path() / "again";
  CHECK_CONTAINS(error_of([&] {
                   export_scales(ExportFormat::kCompressedTensors,
                                 {other, config, exported.folder.path() / "nowhere", kFingerprint, 1}, at);
                 }),
                 "cannot be written");
  int left = 0;
  for (const auto& entry : std::filesystem::directory_iterator(exported.folder.path())) left += entry.exists() ? 1 : 0;
  CHECK(left == 1);
}

TEST_CASE("ModelOpt and SGLang: written, read again, and what is lost is said") {
  const model::TextConfig text = model::read_model_config(kFixtures / "hf-pack-quantized").text;
  const Exported modelopt(ExportFormat::kModelOpt, "hf-pack-quantized");
  const ScaleSet from_modelopt = read_scale_file(modelopt.path, text, kFingerprint);
  CHECK(from_modelopt.layers[1].v == std::vector<float>{1.0f / 3});
  CHECK(from_modelopt.layers[0].k == std::vector<float>{0.5f});
  const Exported sglang(ExportFormat::kSglang, "hf-pack-quantized", true);
  std::string form;
  const ScaleSet from_sglang = read_scale_file(sglang.path, text, kFingerprint, &form);
  CHECK(form == "SGLang");
  CHECK(from_sglang.layers[0].k == std::vector<float>{0.5f});
  CHECK(from_sglang.layers[0].v == std::vector<float>{0.5f});
  CHECK(from_sglang.layers[1].v == std::vector<float>{7.0f});
  REQUIRE(sglang.losses.size() == 2);
  CHECK(sglang.losses[0].find("2 of 2 layers") != std::string::npos);
  CHECK(sglang.losses[1].find("for 2 rank(s) only") != std::string::npos);
  const auto json = model::load_json(sglang.path);
  CHECK(json["kv_cache"]["scaling_factor"].size() == 2);  // ranks
  // SGLang asserts model_type == self.config.__class__.model_type, of the Qwen3VLConfig that its dense Qwen3-VL hands
  // on.
  CHECK(json["model_type"] == "qwen3_vl");
}

TEST_CASE("an export is known again by its fingerprint; what carries none is used with a warning") {
  const model::TextConfig text = model::read_model_config(kFixtures / "hf-pack-quantized").text;
  for (const ExportFormat format : {ExportFormat::kCompressedTensors, ExportFormat::kModelOpt, ExportFormat::kSglang}) {
    const Exported exported(format, "hf-pack-quantized");
    CAPTURE(exported.path);
    CHECK(read_scale_file(exported.path, text, kFingerprint).unchecked_model.empty());
    CHECK_CONTAINS(error_of([&] { read_scale_file(exported.path, text, "another"); }), "of another model");
    if (format == ExportFormat::kSglang) {
      auto json = model::load_json(exported.path);
      json.erase("model_fingerprint");
      std::ofstream(exported.path) << json;
    } else {
      const auto file = exported.path / "kv_scales.safetensors";
      const model::SafetensorsFile written(file);
      std::vector<model::SafetensorsItem> items;
      for (const auto& [name, entry] : written.header().tensors) {
        items.push_back(model::safetensors_item(name, written.view(entry)));
      }
      model::write_safetensors(file, items);
    }
    CHECK_CONTAINS(read_scale_file(exported.path, text, kFingerprint).unchecked_model, "names no model_fingerprint");
  }
}

TEST_CASE("scale tensors: NaN and a missing layer are named") {
  const model::TextConfig text = model::read_model_config(kFixtures / "hf-pack-quantized").text;
  const Exported modelopt(ExportFormat::kModelOpt, "hf-pack-quantized");
  const auto file = modelopt.path / "kv_scales.safetensors";
  const auto rewritten = [&](const std::string& changed, float value, const std::string& dropped) {
    const Exported fresh(ExportFormat::kModelOpt, "hf-pack-quantized");
    const model::SafetensorsFile written(fresh.path / "kv_scales.safetensors");
    std::vector<model::SafetensorsItem> items;
    for (const auto& [name, entry] : written.header().tensors) {
      if (!dropped.empty() && name.find(dropped) != std::string::npos) continue;
      items.push_back(model::safetensors_item(name, written.view(entry)));
      if (name.ends_with(changed)) {
        items.back().produce = [value](const model::AppendBytes& append) { append(&value, sizeof value); };
      }
    }
    model::write_safetensors(file, items);
    return error_of([&] { read_scale_file(file, text, ""); });
  };
  const std::string nan = rewritten("layers.1.self_attn.v_proj.v_scale", std::nanf(""), "");
  CHECK_CONTAINS(nan, "layer 1");
  CHECK_CONTAINS(nan, "v_scale: is nan");
  CHECK_CONTAINS(rewritten("none", 1, "layers.0."), "layer 0 has no KV scales");
}

TEST_CASE("what a form cannot say, or its loader would pass over, is refused before any work") {
  model::ModelConfig config = model::read_model_config(kFixtures / "hf-pack-quantized");
  CHECK_CONTAINS(error_of([&] { check_export(ExportFormat::kModelOpt, config, "head", "/tmp/none-x"); }),
                 "one scale a layer");
  config.quantization.format = model::QuantizationConfig::Format::kAwqGemm;
  CHECK_CONTAINS(error_of([&] { check_export(ExportFormat::kCompressedTensors, config, "tensor", "/tmp/none-x"); }),
                 "AutoAWQ");
  CHECK_CONTAINS(error_of([] { parse_export_formats("vllm,onnx"); }), "onnx");
  CHECK(parse_export_formats("vllm,sglang").size() == 2);
}

TEST_CASE("SGLang: every refusal says where") {
  const model::TextConfig text = model::read_model_config(kFixtures / "hf-pack-quantized").text;
  const auto refusal = [&](const std::string& json) {
    return error_of([&] { parse_sglang_scales(json, "s.json", text, kFingerprint); });
  };
  const std::string head = R"({"model_type": "qwen3_vl", "kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": )";
  CHECK_CONTAINS(refusal("[]"), "s.json: is not a JSON object");
  CHECK_CONTAINS(refusal("{}"), "kv_cache is missing");
  CHECK_CONTAINS(refusal(R"({"kv_cache": {"dtype": "int8", "scaling_factor": {}}})"), "float8_e4m3fn");
  CHECK_CONTAINS(refusal(head + "{}}}"), "holds no rank");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": 1}}}})"), "layer 1 is missing");
  CHECK_CONTAINS(refusal(head + R"({"0": {"1": 1, "2": 1}}}})"), "layer 0 is missing");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": 1, "1": 1, "2": 1}}}})"), "lists 3 layers; the model has 2");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": 1, "1": NaN}}}})"), "layer 1: k_scale is nan");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": Infinity, "1": 1}}}})"), "layer 0: k_scale is inf");
  CHECK_CONTAINS(refusal(R"({"model_type": "llama", "kv_cache": {}})"), "model_type is \"llama\"");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": 1, "1": 0}}}})"), "layer 1: k_scale is 0");
  CHECK_CONTAINS(refusal(head + R"({"0": {"0": 1, "1": "x"}}}})"), "layer 1: the scale is not a number");
  const ScaleSet ranks =
      parse_sglang_scales(head + R"({"0": {"0": 1, "1": 2}, "1": {"0": 1, "1": 3}}}})", "s", text, kFingerprint);
  CHECK(ranks.layers[0].k == std::vector<float>{1});
  CHECK(ranks.layers[1].v == std::vector<float>{2, 3});
}

TEST_CASE("scale tensors: a file without any, and one name in two files") {
  const model::TextConfig text = model::read_model_config(kFixtures / "hf-pack-quantized").text;
  CHECK_CONTAINS(error_of([&] { read_scale_file(kFixtures / "hf-pack-quantized" / "model.safetensors", text, ""); }),
                 "no KV scales");
  const Exported modelopt(ExportFormat::kModelOpt, "hf-pack-quantized");
  std::filesystem::copy(modelopt.path / "kv_scales.safetensors", modelopt.path / "more.safetensors");
  CHECK_CONTAINS(error_of([&] { read_scale_file(modelopt.path, text, ""); }), "both hold");
}
