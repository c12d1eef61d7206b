#include "calibration/estimators.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "calibration/convergence.h"
#include "calibration/diagnostics.h"
#include "calibration/fp8_loss.h"

using namespace qwenbench;
using namespace qwenbench::calibration;

namespace {

constexpr int kHeadDim = 16;

std::vector<float> gaussian(std::size_t count, float sigma, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(count);
  for (float& x : values) x = round_to_bf16(normal(random));
  return values;
}

void see(KvStatistics& statistics, Kind kind, int layer, int head, const std::vector<float>& values,
         bool image = false) {
  const auto tokens = values.size() / kHeadDim;
  statistics.observe(kind, layer, head, values.data(), static_cast<int>(tokens), kHeadDim,
                     std::vector<std::uint8_t>(tokens, image ? 1 : 0));
}

/// The squared error of a round trip, value by value.
double error_of(const std::vector<float>& values, float scale) {
  double sum = 0;
  for (const float x : values) {
    const double error = static_cast<double>(e4m3_to_float(float_to_e4m3(x / scale)) * scale) - x;
    sum += error * error;
  }
  return sum;
}

EstimatorOptions method(const std::string& name, const std::string& granularity = "tensor") {
  EstimatorOptions options;
  options.method = name;
  options.granularity = granularity;
  return options;
}

}  // namespace

TEST_CASE("percentile: the magnitude that so many values do not exceed") {
  KvStatistics statistics(1, 1, kHeadDim);
  std::vector<float> values;
  for (int i = 1; i <= 160; ++i) values.push_back(static_cast<float>(i % 2 == 0 ? i : -i));
  see(statistics, Kind::kKey, 0, 0, values);
  see(statistics, Kind::kValue, 0, 0, values);
  EstimatorOptions options = method("percentile");
  for (const auto& [percent, level] : {std::pair(50.0, 80.0f), {90.0, 144.0f}, {100.0, 160.0f}}) {
    options.percentile = percent;
    CHECK(estimate_scales(statistics, options).layers[0].k[0] == level / 448);
  }
  CHECK(estimate_scales(statistics, options).method == "percentile 100");
}

TEST_CASE("mse: nothing on a finer grid is better by more than the rounding of the search") {
  const auto narrow = gaussian(16000, 0.7f, 1);
  auto spiky = gaussian(16000, 0.001f, 2);
  spiky[5] = 900;  // absmax pushes everything else below the smallest code
  KvStatistics statistics(2, 1, kHeadDim);
  see(statistics, Kind::kKey, 0, 0, narrow);
  see(statistics, Kind::kValue, 0, 0, narrow);
  see(statistics, Kind::kKey, 1, 0, spiky);
  see(statistics, Kind::kValue, 1, 0, spiky);
  const ScaleSet set = estimate_scales(statistics, method("mse"));
  for (const auto& [layer, values] : {std::pair(0, &narrow), {1, &spiky}}) {
    const float scale = set.layers[static_cast<std::size_t>(layer)].k[0];
    const float absmax = std::abs(*std::max_element(values->begin(), values->end(),
                                                    [](float a, float b) { return std::abs(a) < std::abs(b); })) /
                         448;
    const double found = error_of(*values, scale);
    for (int i = -16; i <= 128; ++i) {
      CHECK(found <= 1.03 * error_of(*values, absmax * std::exp2(-static_cast<float>(i) / 16)));
    }
  }
}

TEST_CASE("vllm: 200, 200 and 100; rank-local scales are those of each rank's heads") {
  KvStatistics statistics(StatisticsShape{1, 4, kHeadDim, 8});
  for (int head = 0; head < 4; ++head) {
    see(statistics, Kind::kKey, 0, head, std::vector<float>(kHeadDim, static_cast<float>(head + 1)));
    see(statistics, Kind::kValue, 0, head, std::vector<float>(kHeadDim, static_cast<float>(-2 * head - 2)));
  }
  see(statistics, Kind::kQuery, 0, 7, std::vector<float>(kHeadDim, 50.0f));
  EstimatorOptions options = method("vllm");
  const model::LayerKvScales all = estimate_scales(statistics, options).layers[0];
  CHECK(all.k == std::vector<float>{4.0f / 200});
  CHECK(all.v == std::vector<float>{8.0f / 100});
  CHECK(all.q == std::vector<float>{50.0f / 200});
  CHECK(all.prob == 0.00390625f);
  options.vllm_ranks = 2;
  const ScaleSet local = estimate_scales(statistics, options);
  CHECK(local.layers[0].k == std::vector<float>{2.0f / 200, 2.0f / 200, 4.0f / 200, 4.0f / 200});
  CHECK(local.granularity == "head");
}

TEST_CASE("pow2 rounds up and leaves powers of two alone") {
  ScaleSet set;
  set.layers = {{{0.25f, 0.2500001f, 1.0f, 1.1f, 3e-5f}, {0.3f}, std::vector<float>{5.0f}, {}}};
  EstimatorOptions options;
  round_scales(set, options);
  CHECK(set.layers[0].k[1] == 0.2500001f);
  options.round = "pow2";
  round_scales(set, options);
  CHECK(set.layers[0].k == std::vector<float>{0.25f, 0.5f, 1.0f, 2.0f, 0x1p-15f});
  CHECK(set.layers[0].v == std::vector<float>{0.5f});
  CHECK(*set.layers[0].q == std::vector<float>{8.0f});
}

TEST_CASE("bound: under its scale the largest K there can be does not saturate, and one code less would") {
  const ScaleSet set = bound_scales({181.0f, 20000.0f}, method("bound"));
  for (const auto& [layer, bound] : {std::pair(0, 181.0f), {1, 20000.0f}}) {
    const float scale = set.layers[static_cast<std::size_t>(layer)].k[0];
    const float largest = round_to_bf16(bound * (1 + 0x1p-8f));
    CHECK(largest / scale <= 448);
    CHECK(bound / scale > 440);
    CHECK(set.layers[static_cast<std::size_t>(layer)].v == std::vector<float>{1.0f});
  }
}

TEST_CASE("unknown words are refused with the known ones") {
  CHECK_THROWS_WITH_AS(check_options(method("max")), doctest::Contains("attention_mse"), InputError);
  CHECK_THROWS_AS(check_options(method("mse", "channel")), InputError);
  EstimatorOptions options;
  options.round = "up";
  CHECK_THROWS_AS(check_options(options), InputError);
}

TEST_CASE("diagnostics: text and images apart, at 1 and at the chosen scale; who needs a scale") {
  KvStatistics statistics(2, 2, kHeadDim);
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 2; ++head) {
      see(statistics, Kind::kKey, layer, head, gaussian(1600, 1.0f, 7));
      see(statistics, Kind::kValue, layer, head, gaussian(1600, 1.0f, 8));
    }
  }
  see(statistics, Kind::kValue, 1, 1, std::vector<float>(kHeadDim, 5000.0f), true);
  const ScaleSet set = estimate_scales(statistics, {});
  const auto heads = diagnose_heads(statistics, set.layers);
  REQUIRE(heads.size() == 9);  // 8 of text; of images only the head that saw one
  const auto image =
      std::find_if(heads.begin(), heads.end(), [](const HeadLoss& h) { return h.input == Input::kImage; });
  CHECK(image->layer == 1);
  CHECK(image->head == 1);
  CHECK(image->kind == Kind::kValue);
  CHECK(image->unit.saturated == 1);
  CHECK(image->chosen.saturated == 0);
  CHECK(image->amax == doctest::Approx(5000).epsilon(0.01));
  for (const LayerLoss& row : diagnose_layers(statistics, set.layers)) {
    CHECK((row.gain_db() > kNeedsScaleDb) == (row.layer == 1 && row.kind == Kind::kValue));
  }
}

TEST_CASE("the change of scales is relative, and names the layer") {
  ScaleSet before, after;
  before.layers = {{{1.0f}, {2.0f}, {}, {}}, {{4.0f, 4.0f}, {1.0f}, {}, {}}};
  after.layers = {{{1.0f}, {2.1f}, {}, {}}, {{4.0f, 5.0f}, {1.0f}, {}, {}}};
  CHECK(change_of(before, after).largest == doctest::Approx(0.25));
  CHECK(change_of(before, after).layer == 1);
  after.layers[0].q = {9.0f};  // known of one alone: no change
  CHECK(change_of(before, after).layer == 1);
  before.layers[0].q = {3.0f};
  CHECK(change_of(before, after).largest == doctest::Approx(2));
  CHECK(change_of(before, after).layer == 0);
}

TEST_CASE("the second half of what was seen: from the last look that is early enough") {
  std::vector<Look> looks;
  const auto look = [&looks](int requests, float scale) {
    ScaleSet set;
    set.layers = {{{scale}, {1.0f}, {}, {}}};
    looks.push_back({requests, requests * 10, set});
  };
  CHECK_FALSE(second_half(looks));
  look(6, 1.0f);
  CHECK_FALSE(second_half(looks));
  CHECK_FALSE(movement_of("absmax", looks).settled());
  look(12, 1.5f);
  CHECK(second_half(looks)->from_requests == 6);
  look(18, 1.52f);
  CHECK(second_half(looks)->from_requests == 6);  // 12 of 18 are more than half
  look(24, 1.51f);
  const Movement movement = movement_of("mse", looks);
  CHECK(movement.half->from_requests == 12);
  CHECK(movement.half->requests == 24);
  CHECK(movement.half->change.largest == doctest::Approx(0.01 / 1.5));
  CHECK(movement.settled() == true);
  REQUIRE(movement.points.size() == 4);
  CHECK(movement.points[0].change.largest == 0);
  CHECK(movement.points[1].change.largest == doctest::Approx(0.5));
  CHECK(movement.points[1].tokens == 120);
  looks.back().scales.layers[0].k[0] = 1.52f;  // 1.3 % above 1.5
  CHECK(movement_of("mse", looks).settled() == false);
}
