// Which runs --verify makes of the chosen scales, and what it says of their outcome. The runs themselves:
// calibrate_kv_test.
#include "measure/scale_delivery.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include "calibration/estimators.h"

using namespace qwenbench;
using namespace qwenbench::measure;
using Run = DeliveryRun::Kind;

namespace {

constexpr int kHeadDim = 4;

/// One layer and head: K up to 56, V up to 7; most values are far smaller.
std::unique_ptr<calibration::KvStatistics> example() {
  auto seen = std::make_unique<calibration::KvStatistics>(1, 1, kHeadDim);
  const float k[] = {56, 1, 1, 1, 2, 1, 1, 1}, v[] = {7, 1, 1, 1, 1, 1, 1, 1};
  seen->observe(calibration::Kind::kKey, 0, 0, k, 2, kHeadDim, {});
  seen->observe(calibration::Kind::kValue, 0, 0, v, 2, kHeadDim, {});
  return seen;
}

const DeliveryRun& find(const std::vector<DeliveryRun>& runs, const std::string& name) {
  const auto found = std::find_if(runs.begin(), runs.end(), [&](const DeliveryRun& run) { return run.name == name; });
  REQUIRE(found != runs.end());
  return *found;
}

calibration::ScaleSet scales_of(float k, float v) {
  calibration::ScaleSet set;
  set.layers = {{{k}, {v}, {}, {}}};
  return set;
}

std::vector<DeliveryRun> outcome(double agreeing, double saturating, double fault) {
  std::vector<DeliveryRun> runs = plan_delivery(scales_of(0.125f, 7.0f / 448), *example());
  for (DeliveryRun& run : runs) {
    if (run.kind == Run::kAgrees) run.kld_mean = agreeing;
    if (run.kind == Run::kLoses) run.kld_mean = saturating;
    if (run.kind == Run::kFault) run.kld_mean = fault;
  }
  return runs;
}

}  // namespace

TEST_CASE("tight scales: they are a quarter of the reference, and a quarter of them loses range") {
  const auto seen = example();
  const calibration::ScaleSet chosen = calibration::estimate_scales(*seen, {});
  const std::vector<DeliveryRun> runs = plan_delivery(chosen, *seen);
  REQUIRE(runs.size() == 8);
  CHECK(runs[0].kind == Run::kReference);
  CHECK(runs[0].name == "chosen scales x 4");
  CHECK(runs[0].write[0].k == std::vector<float>{4 * chosen.layers[0].k[0]});
  CHECK(find(runs, "chosen scales").kind == Run::kAgrees);
  CHECK(find(runs, "chosen scales").write[0].v == chosen.layers[0].v);
  CHECK(find(runs, "chosen scales x 16").kind == Run::kAgrees);
  const DeliveryRun& quarter = find(runs, "chosen scales / 4");
  CHECK(quarter.kind == Run::kLoses);
  CHECK(quarter.k_saturated == doctest::Approx(1.0 / 8));
  CHECK(quarter.v_saturated == doctest::Approx(1.0 / 8));
}

TEST_CASE("a fault gives K or V on one side four times the scales of the reference") {
  const std::vector<DeliveryRun> runs = plan_delivery(scales_of(0.125f, 7.0f / 448), *example());
  CHECK(find(runs, "K x 4 in writing alone").write[0].k == std::vector<float>{2.0f});
  CHECK(find(runs, "K x 4 in writing alone").read[0].k == std::vector<float>{0.5f});
  CHECK(find(runs, "V x 4 in reading alone").read[0].v == std::vector<float>{16 * 7.0f / 448});
  CHECK(find(runs, "V x 4 in reading alone").read[0].k == find(runs, "V x 4 in reading alone").write[0].k);
  CHECK(std::count_if(runs.begin(), runs.end(), [](const auto& run) { return run.kind == Run::kFault; }) == 4);
}

TEST_CASE("scales that cut off: more room, and they are shown for what they are") {
  // K needs 0.125 for its 56: 0.05 cuts that one off, twice that too, four times it does not.
  const std::vector<DeliveryRun> runs = plan_delivery(scales_of(0.05f, 7.0f / 448), *example());
  CHECK(runs[0].name == "chosen scales x 16");
  CHECK(find(runs, "chosen scales x 4").kind == Run::kAgrees);
  CHECK(find(runs, "chosen scales x 64").kind == Run::kAgrees);
  CHECK(find(runs, "chosen scales").kind == Run::kLoses);
  CHECK(find(runs, "chosen scales").k_saturated == doctest::Approx(1.0 / 8));
  CHECK(find(runs, "chosen scales").v_saturated == 0);
  // With room of their own even a quarter of them cuts off nothing.
  CHECK(find(plan_delivery(scales_of(1, 1), *example()), "chosen scales / 4").kind == Run::kAgrees);
}

TEST_CASE("a value in a million that is cut off a little does not matter") {
  calibration::KvStatistics seen(1, 1, kHeadDim);
  std::vector<float> values(4'000'000, 1.1f);
  values[0] = 60;
  for (const calibration::Kind kind : {calibration::Kind::kKey, calibration::Kind::kValue}) {
    seen.observe(kind, 0, 0, values.data(), 1'000'000, kHeadDim, {});
  }
  const std::vector<DeliveryRun> runs = plan_delivery(scales_of(0.125f, 0.125f), seen);
  CHECK(runs[0].name == "chosen scales x 4");
  CHECK(find(runs, "chosen scales").kind == Run::kAgrees);
  CHECK(find(runs, "chosen scales").k_saturated > 0);
}

TEST_CASE("the verdict: every fault far above all that agrees; what leaves the range has no say") {
  CHECK(delivered(outcome(0.001, 2.0, 0.5)));
  CHECK_FALSE(delivered(outcome(0.1, 0.0, 0.5)));    // a fault of less than ten times
  CHECK_FALSE(delivered(outcome(0.0, 0.0, 0.005)));  // a fault that does not matter
  std::vector<DeliveryRun> one_missed = outcome(0.001, 2.0, 0.5);
  one_missed.back().kld_mean = 0;  // V in reading: its scales were not looked at
  CHECK_FALSE(delivered(one_missed));
}

TEST_CASE("where every run that agrees loses range, that is said") {
  std::vector<DeliveryRun> runs = outcome(0, 0, 0.5);
  CHECK(render_delivery({runs, true, false}).find("what agrees barely matters") != std::string::npos);
  for (DeliveryRun& run : runs) {
    if (run.kind == Run::kAgrees) run.kind = Run::kLoses;
  }
  CHECK(render_delivery({runs, true, false}).find("could not be shown") != std::string::npos);
  CHECK(render_delivery({runs, false, false}).find("DO NOT ARRIVE") != std::string::npos);
}
