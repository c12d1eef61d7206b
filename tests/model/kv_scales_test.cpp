#include <cmath>
#include <limits>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;

namespace {

/// KV scales of a model of two layers (4 query heads, 2 KV heads) that has these tensors.
std::vector<LayerKvScales> scales_of(const std::vector<SafetensorsItem>& items) {
  TemporaryFolder folder;
  std::filesystem::copy(kFixtures / "hf-bf16-sharded" / "config.json", folder.path() / "config.json");
  write_safetensors(folder.path() / "model.safetensors", items);
  return open_checkpoint(folder.path())->kv_scales();
}

std::string in_layer(int layer, const std::string& name) {
  return "model.language_model.layers." + std::to_string(layer) + ".self_attn." + name;
}

SafetensorsItem scalar(int layer, const std::string& name, float value) {
  return item<float>(in_layer(layer, name), DType::kF32, {1}, {value});
}

}  // namespace

TEST_CASE("kv scales: every name and shape") {
  for (const auto& [k, v] : {std::pair("k_scale", "v_scale"), {"k_proj.k_scale", "v_proj.v_scale"}}) {
    CAPTURE(k);
    const auto layers = scales_of({scalar(0, k, 0.5f), scalar(0, v, 0.25f), scalar(1, k, 2.0f), scalar(1, v, 3.0f)});
    REQUIRE(layers.size() == 2);
    CHECK(layers[0].k == std::vector<float>{0.5f});
    CHECK(layers[0].v == std::vector<float>{0.25f});
    CHECK(layers[1].k == std::vector<float>{2.0f});
    CHECK(layers[1].v == std::vector<float>{3.0f});
    CHECK_FALSE(layers[0].q);
    CHECK_FALSE(layers[0].prob);
  }
  const auto old =
      scales_of({item<float>(in_layer(0, "kv_scale"), DType::kF32, {}, {0.5f}), scalar(1, "kv_scale", 2.0f)});
  CHECK(old.at(0).k == std::vector<float>{0.5f});
  CHECK(old.at(0).v == std::vector<float>{0.5f});
  const auto heads =
      scales_of({item<std::uint16_t>(in_layer(0, "k_scale"), DType::kBF16, {2, 1, 1}, {0x3f80, 0x4000}),
                 item<std::uint16_t>(in_layer(0, "v_scale"), DType::kF16, {2}, {0x3c00, 0x3800}),
                 item<float>(in_layer(0, "q_scale"), DType::kF32, {4, 1, 1}, {1, 2, 3, 4}),
                 scalar(0, "prob_scale", 0.01f), scalar(1, "k_scale", 1.0f), scalar(1, "v_scale", 1.0f)});
  CHECK(heads.at(0).k == std::vector<float>{1, 2});
  CHECK(heads.at(0).v == std::vector<float>{1, 0.5f});
  CHECK(heads.at(0).q == std::vector<float>{1, 2, 3, 4});
  CHECK(heads.at(0).prob == 0.01f);
}

TEST_CASE("kv scales: bad ones name the layer") {
  const auto bad = [](const SafetensorsItem& k) {
    return error_of([&] { scales_of({k, scalar(1, "v_scale", 1), scalar(0, "k_scale", 1), scalar(0, "v_scale", 1)}); });
  };
  for (const float value :
       {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CHECK_CONTAINS(bad(scalar(1, "k_scale", value)), "layer 1");
    CHECK_CONTAINS(bad(scalar(1, "k_scale", value)), "must be a positive number");
  }
  CHECK_CONTAINS(bad(item<float>(in_layer(1, "k_scale"), DType::kF32, {3}, {1, 1, 1})),
                 "has shape [3], must be [1] or [2, 1, 1]");
  CHECK_CONTAINS(bad(item<float>(in_layer(1, "k_scale"), DType::kF32, {1, 2}, {1, 1})), "has shape [1, 2]");
  CHECK_CONTAINS(bad(item<float>(in_layer(1, "k_scale"), DType::kF32, {0}, {})), "has shape [0]");
  CHECK_CONTAINS(bad(item<std::int32_t>(in_layer(1, "k_scale"), DType::kI32, {1}, {1})), "has dtype I32");
  CHECK_CONTAINS(error_of([] {
                   scales_of({scalar(0, "k_scale", 1), scalar(0, "v_scale", 1)});
                 }),
                 "layer 1 has no KV scales");
  CHECK_CONTAINS(error_of([] { scales_of({scalar(0, "k_scale", 1)}); }), "layer 0");
  CHECK_CONTAINS(error_of([] {
                   scales_of({scalar(0, "k_scale", 1), scalar(0, "k_proj.k_scale", 2), scalar(0, "v_scale", 1)});
                 }),
                 "differs");
}
