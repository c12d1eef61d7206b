#include <cmath>
#include <cstring>
#include <thread>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;
using nlohmann::json;

namespace {

struct Moments {
  double mean = 0, std = 0;
};

Moments moments_of(const std::vector<float>& values) {
  Moments out;
  for (const float value : values) out.mean += value / static_cast<double>(values.size());
  for (const float value : values)
    out.std += (value - out.mean) * (value - out.mean) / static_cast<double>(values.size());
  out.std = std::sqrt(out.std);
  return out;
}

std::vector<float> values_of(const WeightSource& weights, const std::string& module, std::int64_t n, std::int64_t k) {
  std::vector<float> out(static_cast<std::size_t>(n * k));
  weights.linear(module, n, k)->dequantize(0, n, out.data());
  return out;
}

/// A folder with nothing but a config.json in the given quantized form.
void write_config(const std::filesystem::path& folder, const json& quantization) {
  json config = load_json(kFixtures / "hf-bf16-sharded" / "config.json");
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  write_file_atomically(folder / "config.json", config.dump());
}

json packed_form(bool symmetric, const char* order) {
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"ignore", {"lm_head", "re:.*visual.*"}},
          {"config_groups",
           {{"group_0",
             {{"weights",
               {{"num_bits", 4},
                {"strategy", "group"},
                {"group_size", 32},
                {"symmetric", symmetric},
                {"actorder", order == nullptr ? json() : json(order)}}}}}}}};
}

const json kForms[] = {
    json(),
    packed_form(false, nullptr),
    packed_form(true, "group"),
    {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"modules_to_not_convert", {"visual"}}},
    {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}, {"modules_to_not_convert", {"visual"}}},
};

const std::string kUp = "model.language_model.layers.1.mlp.up_proj";  // [96, 64]

}  // namespace

TEST_CASE("dummy weights: every form is readable, sensible, and the same for the same seed") {
  for (const json& form : kForms) {
    CAPTURE(form);
    TemporaryFolder folder;
    write_config(folder.path(), form);
    const auto weights = make_dummy_weights(folder.path(), 7), same = make_dummy_weights(folder.path(), 7);
    const auto other = make_dummy_weights(folder.path(), 8);
    CHECK(weights->is_dummy());
    CHECK(weights->kv_scales().empty());
    const auto values = values_of(*weights, kUp, 96, 64);
    CHECK(values == values_of(*same, kUp, 96, 64));
    CHECK(values == values_of(*weights, kUp, 96, 64));
    CHECK(values != values_of(*other, kUp, 96, 64));
    CHECK(values != values_of(*weights, "model.language_model.layers.0.mlp.up_proj", 96, 64));
    const Moments moments = moments_of(values);
    CHECK(std::abs(moments.mean) < 0.004);
    CHECK(moments.std > 0.012);
    CHECK(moments.std < 0.03);
    CHECK(weights->fingerprint() == same->fingerprint());
    CHECK(weights->fingerprint() != other->fingerprint());
  }
}

TEST_CASE("dummy weights: all expected tensors are there, finite, norms near 1") {
  for (const json& form : kForms) {
    TemporaryFolder folder;
    write_config(folder.path(), form);
    const auto weights = make_dummy_weights(folder.path(), 1);
    std::size_t bytes = 0;
    for (const TensorSpec& spec : expected_tensors(weights->config())) {
      CAPTURE(spec.name);
      REQUIRE(weights->has(spec.name));
      const TensorView view = weights->tensor(spec.name, spec.shape);
      CHECK(view.dtype == spec.dtype);
      bytes += view.bytes();
      if (spec.dtype != DType::kBF16 && spec.dtype != DType::kF16) continue;
      for (const float value : view.to_floats()) CHECK(std::isfinite(value));
      if (spec.name.ends_with("norm.weight")) CHECK(std::abs(moments_of(view.to_floats()).mean - 1) < 0.02);
    }
    CHECK(weights->total_bytes() == bytes);
  }
}

TEST_CASE("dummy weights written as a checkpoint are the same weights") {
  TemporaryFolder folder, out;
  write_config(folder.path(), packed_form(false, nullptr));
  int shards = 0;
  write_dummy_checkpoint(folder.path(), out.path() / "made", 7, 100000, [&](std::size_t) { ++shards; });
  CHECK(shards > 1);
  const auto dummy = make_dummy_weights(folder.path(), 7);
  const auto written = open_checkpoint(out.path() / "made");
  CHECK(written->total_bytes() == dummy->total_bytes());
  for (const TensorSpec& spec : expected_tensors(dummy->config())) {
    const TensorView a = dummy->tensor(spec.name, spec.shape), b = written->tensor(spec.name, spec.shape);
    REQUIRE(a.dtype == b.dtype);
    CHECK(std::memcmp(a.data, b.data, a.bytes()) == 0);
  }
  CHECK_THROWS_AS(write_dummy_checkpoint(folder.path(), folder.path() / "config.json" / "x", 7), InputError);
}

TEST_CASE("dummy weights: threads that ask for one tensor at once get the same") {
  const auto weights = make_dummy_weights(kFixtures / "hf-bf16-sharded", 3);
  const std::int64_t shape[] = {256, 64};
  std::vector<const std::byte*> seen(4);
  std::vector<std::thread> threads;
  for (auto& slot : seen) threads.emplace_back([&] { slot = weights->tensor("lm_head.weight", shape).data; });
  for (auto& thread : threads) thread.join();
  for (const auto* data : seen) CHECK(data == seen[0]);
}

TEST_CASE("dummy weights: wrong shapes and unknown names are refused as in a checkpoint") {
  const auto weights = make_dummy_weights(kFixtures / "hf-bf16-sharded", 3);
  const std::int64_t shape[] = {1};
  CHECK_CONTAINS(error_of([&] { (void)weights->tensor("lm_head.weight", shape); }), "has shape [256, 64]");
  CHECK_CONTAINS(error_of([&] { (void)weights->linear("lm_foot", 1, 1); }), "module lm_foot has no weight");
}
