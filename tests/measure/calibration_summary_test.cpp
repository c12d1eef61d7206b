#include "measure/calibration_summary.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>

using namespace qwenbench;
using namespace qwenbench::calibration;
using measure::render_calibration;

namespace {

/// 64 layers; those of `large` may hold a K of 1,000, the others one of 100.
std::vector<float> bounds_of(const std::vector<int>& large) {
  std::vector<float> bounds(64, 100.0f);
  for (const int layer : large) bounds[static_cast<std::size_t>(layer)] = 1000.0f;
  return bounds;
}

workload::Workload set_of(std::size_t requests) {
  workload::Workload set;
  set.dataset_name = "some";
  set.requests.resize(requests);
  return set;
}

Calibration by_bound(const std::vector<float>& bounds) {
  EstimatorOptions options;
  options.method = "bound";
  Calibration calibration;
  calibration.scales = bound_scales(bounds, options);
  return calibration;
}

/// 64 layers of one K and V each; V is 4,000 in the layers of `large`.
Calibration by_absmax(const std::vector<int>& large) {
  Calibration calibration;
  calibration.statistics = std::make_unique<KvStatistics>(64, 1, 1);
  for (int layer = 0; layer < 64; ++layer) {
    const float k = 10, v = std::count(large.begin(), large.end(), layer) > 0 ? 4000.0f : 10.0f;
    calibration.statistics->observe(Kind::kKey, layer, 0, &k, 1, 1, {});
    calibration.statistics->observe(Kind::kValue, layer, 0, &v, 1, 1, {});
  }
  calibration.scales = estimate_scales(*calibration.statistics, {});
  calibration.scales.samples = 1;
  calibration.requests = 24;
  Movement movement{"absmax", {{8, 100, {}}, {16, 200, {0.5, 1}}, {24, 300, {0.004, 2}}}, SecondHalf{8, 24, {0.4, 3}}};
  calibration.movements = {movement};
  return calibration;
}

bool holds(const std::string& text, const std::string& part) {
  CAPTURE(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK_MESSAGE(found, part);
  return found;
}

void check_screen(const std::string& text) {
  std::istringstream lines(text);
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) CHECK(line.size() <= 100);
  CHECK(count <= 25);
}

}  // namespace

TEST_CASE("bound: every layer in which K could saturate is named, in ranges; or that none is") {
  const auto bounds = bounds_of({0, 1, 2, 3, 7, 62, 63});
  const std::string some = render_calibration("m", by_bound(bounds), bounds, set_of(0));
  holds(some, "saturate at scale 1 in 7 of 64 layers: 0-3, 7,\n  62-63\nThese layers need a scale of K");
  holds(some, "Of V");
  const auto none = render_calibration("m", by_bound(bounds_of({})), bounds_of({}), set_of(0));
  holds(none, "No layer needs a scale of K");
  CHECK(none.find("These layers") == std::string::npos);
  std::vector<int> every_other;
  for (int layer = 0; layer < 64; layer += 2) every_other.push_back(layer);
  const std::string many = render_calibration("m", by_bound(bounds_of(every_other)), bounds_of(every_other), set_of(0));
  holds(many, " 60, 62\n");
  check_screen(many);
}

TEST_CASE("more layers than lines: the rest is named, too") {
  std::vector<int> most;
  for (int layer = 5; layer < 40; ++layer) most.push_back(layer);
  const std::string text = render_calibration("m", by_absmax(most), bounds_of({}), set_of(24));
  holds(text, "35 tensors need a scale");
  holds(text, "\n  layer 14  V: 100 % saturated, 0 % flushed to 0, SNR 1.0 dB; chosen no error\n");
  holds(text, "\n  and V of layers 15-39\n");
  check_screen(text);
  holds(render_calibration("m", by_absmax({}), bounds_of({}), set_of(24)), "No layer needs a scale");
}

TEST_CASE("what moved the scales, whose they are, and whether they had settled") {
  Calibration calibration = by_absmax({});
  holds(render_calibration("m", calibration, {}, set_of(24)),
        "absmax, per tensor; 24 of 24 requests (some), 1 tokens\n"
        "absmax: largest change of a scale 50 % at 16, 0.4 % at 24\n"
        "  not settled: requests 9 to 24 moved a scale of layer 3 by 40 %\n");
  calibration.movements[0].half->change.largest = 0.004;
  calibration.movements[0].half->from_requests = 12;
  calibration.ended_early = true;
  holds(render_calibration("m", calibration, {}, set_of(64)),
        "  settled: requests 13 to 24 moved no scale by 1 %\n  the other 40 requests of the set were left out\n");
  calibration.movements.push_back({"attention_mse", {{4, 100, {}}, {8, 200, {0.19, 2}}}, SecondHalf{4, 8, {0.19, 2}}});
  const std::string two = render_calibration("m", calibration, {}, set_of(64));
  holds(two, "absmax (where the candidates lie): largest");
  holds(two, "left out\nattention_mse (in steps of 19 %): largest change of a scale 19 % at 8\n  not settled");
  calibration.movements = {{"absmax", {{1, 100, {}}}, std::nullopt}};
  holds(render_calibration("m", calibration, {}, set_of(1)), "absmax\n  too few requests");
  calibration.movements.clear();  // vllm
  calibration.requests = 3;
  holds(render_calibration("m", calibration, {}, set_of(24)), "the first step alone: 3 of 24 requests (some)");
}
