#include "calibration/calibrate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/interrupt.h"
#include "calibration/estimators.h"
#include "calibration/resolve.h"

using namespace qwenbench;
using namespace qwenbench::calibration;
using workload::Request;

namespace {

/// Two requests a step; K of layer 1 is the request's first token, or NaN where that is 13.
class FakeRun : public CalibrationRun {
 public:
  explicit FakeRun(KvStatistics& statistics) : statistics_(statistics) {}
  engine::RequestId submit(const Request& request) override {
    if (request.prompt.empty()) throw InputError("the prompt is empty");
    waiting_.push_back({++ids_, request.prompt[0]});
    return ids_;
  }
  CalibrationStep step() override {
    CalibrationStep step;
    for (int i = 0; i < 2 && !waiting_.empty(); ++i) {
      const auto [id, token] = waiting_.front();
      waiting_.erase(waiting_.begin());
      const float value = token == 13 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(token);
      statistics_.observe(Kind::kKey, 1, 0, &value, 1, 1, {});
      step.ended.push_back(id);
    }
    return step;
  }
  bool idle() const override { return waiting_.empty(); }
  void reset() override { waiting_.clear(); }

 private:
  KvStatistics& statistics_;
  engine::RequestId ids_ = 0;
  std::vector<std::pair<engine::RequestId, int>> waiting_;
};

std::vector<Request> requests_of(const std::vector<int>& tokens) {
  std::vector<Request> requests;
  for (const int token : tokens) {
    requests.emplace_back();
    requests.back().id = std::string("q").append(std::to_string(token));
    requests.back().prompt = {token};
  }
  return requests;
}

class FakeWeights : public model::WeightSource {
 public:
  explicit FakeWeights(std::vector<model::LayerKvScales> scales) : scales_(std::move(scales)) {
    config_.text.num_layers = 1;
    config_.text.num_kv_heads = 2;
  }
  const model::ModelConfig& config() const override { return config_; }
  bool has(const std::string&) const override { return false; }
  model::TensorView tensor(const std::string&, std::span<const std::int64_t>) const override { return {}; }
  std::unique_ptr<model::LinearSource> linear(const std::string&, std::int64_t, std::int64_t) const override {
    return {};
  }
  std::vector<model::LayerKvScales> kv_scales() const override { return scales_; }
  std::string fingerprint() const override { return "model-1"; }
  std::size_t total_bytes() const override { return 0; }
  bool is_dummy() const override { return false; }

 private:
  model::ModelConfig config_;
  std::vector<model::LayerKvScales> scales_;
};

profile::Variant variant_of(const std::string& scales, profile::KvCacheDtype dtype = profile::KvCacheDtype::kFp8E4M3) {
  return {"v", dtype, scales};
}

}  // namespace

TEST_CASE("all requests of the set are seen") {
  KvStatistics statistics(2, 1, 1);
  FakeRun run(statistics);
  int finished = 0;
  CHECK(collect_statistics(run, statistics, requests_of({1, 2, 448, 4, 5}), [&] { ++finished; }));
  CHECK(finished == 5);
  CHECK(statistics.of(Kind::kKey, 1).total() == 5);
  CHECK(estimate_scales(statistics, {}).layers[1].k == std::vector<float>{1.0f});
}

TEST_CASE("NaN names layer and request, also where another request shared the step") {
  KvStatistics statistics(2, 1, 1);
  FakeRun run(statistics);
  CHECK_THROWS_WITH_AS(collect_statistics(run, statistics, requests_of({1, 2, 3, 13, 5})),
                       doctest::Contains("layer 1 is NaN or infinite at token 0 of request q13;"), InputError);
}

TEST_CASE("a request that can never run is named; Ctrl-C ends the run") {
  KvStatistics statistics(2, 1, 1);
  FakeRun run(statistics);
  auto requests = requests_of({1, 2});
  requests[1].prompt.clear();
  CHECK_THROWS_WITH_AS(collect_statistics(run, statistics, requests),
                       "request q2 of the calibration set: the prompt is empty", InputError);
  run.reset();
  set_interrupted(true);
  CHECK_FALSE(collect_statistics(run, statistics, requests_of({1})));
  set_interrupted(false);
}

TEST_CASE("where a variant's scales come from") {
  const FakeWeights plain({}), scaled({{{0.5f, 0.25f}, {2.0f}, std::nullopt, std::nullopt}});
  int calibrations = 0;
  const auto calibrate = [&] {
    ++calibrations;
    ScaleSet set;
    set.method = "absmax";
    set.layers = {{{3.0f}, {4.0f}, std::nullopt, std::nullopt}};
    return set;
  };
  const auto resolve_path = [](const std::string& path) { return std::filesystem::path("/nowhere") / path; };
  ScaleResolver resolver({plain, calibrate, resolve_path});
  CHECK_FALSE(resolver.resolve(variant_of("calibrate", profile::KvCacheDtype::kBFloat16)).has_value());
  CHECK(calibrations == 0);
  CHECK(resolver.resolve(variant_of("unit"))->method == "unit");
  CHECK(resolver.resolve(variant_of("unit"))->layers.empty());
  CHECK(resolver.resolve(variant_of("calibrate"))->layers[0].k == std::vector<float>{3.0f});
  CHECK(resolver.resolve(variant_of("calibrate"))->layers[0].v == std::vector<float>{4.0f});
  CHECK(calibrations == 1);
  CHECK_THROWS_WITH_AS(resolver.resolve(variant_of("checkpoint")), doctest::Contains("the checkpoint has none"),
                       InputError);
  CHECK_THROWS_WITH_AS(resolver.resolve(variant_of("scales.json")), doctest::Contains("/nowhere/scales.json"),
                       InputError);
  ScaleResolver with_scales({scaled, calibrate, resolve_path});
  CHECK(with_scales.resolve(variant_of("checkpoint"))->granularity == "head");
  CHECK(with_scales.resolve(variant_of("checkpoint"))->layers[0].k[1] == 0.25f);
}
