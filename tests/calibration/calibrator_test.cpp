#include "calibration/calibrator.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <set>

#include "base/dtype.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "calibration/attention_error.h"
#include "calibration/evidence.h"

using namespace qwenbench;
using namespace qwenbench::calibration;
using workload::Request;

namespace {

/// K and V of a request are its first token, Q its square; Ctrl-C comes in step `interrupt_at`. A step runs `per_step`
/// requests.
class FakeRun : public CalibrationRun {
 public:
  FakeRun(backend::KvObserver& observer, int interrupt_at, int per_step)
      : observer_(observer), interrupt_at_(interrupt_at), per_step_(per_step) {}
  engine::RequestId submit(const Request& request) override {
    waiting_.push_back(request.prompt[0]);
    return static_cast<engine::RequestId>(ids_++);
  }
  CalibrationStep step() override {
    CalibrationStep step;
    if (steps_++ == interrupt_at_) set_interrupted(true);
    for (; step.begun < per_step_ && !idle(); ++step.begun, ++step.tokens) {
      const auto value = static_cast<float>(waiting_.front());
      waiting_.erase(waiting_.begin());
      for (const Kind kind : {Kind::kKey, Kind::kValue, Kind::kQuery}) {
        const float shown = kind == Kind::kQuery ? value * value : value;
        if (observer_.wants(kind)) observer_.observe(kind, 0, 0, &shown, 1, 1, {});
      }
      step.ended.push_back(ended_++);
    }
    return step;
  }
  bool idle() const override { return waiting_.empty(); }
  void reset() override { waiting_.clear(); }

 private:
  backend::KvObserver& observer_;
  int interrupt_at_, per_step_, steps_ = 0, ids_ = 0, ended_ = 0;
  std::vector<int> waiting_;
};

OpenRun opener(int interrupt_at = -1, int per_step = 1) {
  return [=](backend::KvObserver& observer) { return std::make_unique<FakeRun>(observer, interrupt_at, per_step); };
}

std::vector<Request> requests_of(const std::vector<int>& tokens) {
  std::vector<Request> requests;
  for (const int token : tokens) {
    requests.emplace_back();
    requests.back().prompt = {token};
  }
  return requests;
}

CalibratorOptions options_of() {
  CalibratorOptions options;
  options.shape = {1, 1, 1, 0};
  options.query_heads = 1;
  options.look_every = 4;
  options.settle_after = 8;
  options.state_key = "key";
  return options;
}

struct StateFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("qwenbench-state-" + std::to_string(::getpid()));
  ~StateFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("the order visits everything once, and every beginning is spread over the whole") {
  for (const std::size_t count : {0u, 1u, 2u, 7u, 8u, 100u}) {
    const auto order = covering_order(count);
    CHECK(std::set<std::size_t>(order.begin(), order.end()).size() == count);
    CHECK(order.size() == count);
  }
  CHECK(covering_order(8) == std::vector<std::size_t>{0, 4, 2, 6, 1, 5, 3, 7});
  auto first = covering_order(1000);
  first.resize(100);
  std::sort(first.begin(), first.end());
  for (std::size_t i = 1; i < first.size(); ++i) CHECK(first[i] - first[i - 1] <= 16);
}

TEST_CASE("settled scales end the calibration; moving ones do not") {
  const std::vector<int> flat(32, 100);
  std::vector<int> rising;
  for (int i = 0; i < 32; ++i) rising.push_back(100 + 10 * i);
  const Calibration settled = calibrate(opener(), requests_of(flat), options_of());
  CHECK(settled.ended_early);
  CHECK(settled.requests == 8);
  CHECK(settled.movements[0].points.size() == 2);
  CHECK(settled.movements[0].points[1].change.largest == 0);
  const Calibration moving = calibrate(opener(), requests_of(rising), options_of());
  CHECK_FALSE(moving.ended_early);
  CHECK(moving.requests == 32);
  CHECK(moving.scales.layers[0].k[0] == 410.0f / 448);
  CHECK(moving.movements[0].points.size() == 8);
  CalibratorOptions never = options_of();
  never.settle_after = 0;
  CHECK(calibrate(opener(), requests_of(flat), never).requests == 32);
}

TEST_CASE("by default a set of 64 can end early, one of 24 cannot; both say whether they had settled") {
  CalibratorOptions options = options_of();
  options.look_every = CalibratorOptions().look_every;
  options.settle_after = CalibratorOptions().settle_after;
  const auto constant = [&](int count) { return requests_of(std::vector<int>(static_cast<std::size_t>(count), 100)); };
  const Calibration some = calibrate(opener(), constant(64), options);
  CHECK(some.ended_early);
  CHECK(some.requests == 32);
  const Calibration few = calibrate(opener(), constant(24), options);
  CHECK_FALSE(few.ended_early);
  CHECK(few.requests == 24);
  CHECK(few.movements[0].half->from_requests == 12);
  CHECK(few.movements[0].settled() == true);
  CHECK(calibrate(opener(), constant(2), options).movements[0].settled() == true);
  CHECK_FALSE(calibrate(opener(), constant(1), options).movements[0].settled());
  // In the covering order the odd ones are the second half.
  std::vector<int> late(64, 100);
  for (std::size_t i = 1; i < late.size(); i += 2) late[i] = 105;
  const Calibration moved = calibrate(opener(), requests_of(late), options);
  CHECK(moved.requests == 32);  // it cannot know
  options.settle_after = 0;
  const Calibration whole = calibrate(opener(), requests_of(late), options);
  CHECK(whole.movements[0].settled() == false);
  CHECK(whole.movements[0].half->change.largest == doctest::Approx(0.05));
}

TEST_CASE("attention_mse: the movement of its own scales stands beside that of its candidates' range") {
  std::vector<int> tokens;
  for (int i = 0; i < 16; ++i) tokens.push_back(3 + i % 5);
  ThreadPool pool(1);
  CalibratorOptions options = options_of();
  options.estimator.method = "attention_mse";
  options.attention_requests = 8;
  options.settle_after = 0;
  options.pool = &pool;
  const Calibration done = calibrate(opener(), requests_of(tokens), options);
  REQUIRE(done.movements.size() == 2);
  CHECK(done.movements[0].method == "absmax");
  CHECK(done.movements[0].points.back().requests == 16);
  const Movement& own = done.movements[1];
  CHECK(own.method == "attention_mse");
  REQUIRE(own.points.size() == 4);
  for (int quarter = 0; quarter < 4; ++quarter) {
    CHECK(own.points[static_cast<std::size_t>(quarter)].requests == 2 * (quarter + 1));
    CHECK(own.points[static_cast<std::size_t>(quarter)].tokens == 2 * (quarter + 1));
  }
  CHECK(own.half->from_requests == 4);
}

TEST_CASE("probabilities are looked at where asked for, and cost no run where not") {
  int opened = 0;
  const OpenRun count = [&opened](backend::KvObserver& observer) {
    ++opened;
    return opener()(observer);
  };
  ThreadPool pool(1);
  CalibratorOptions options = options_of();
  options.pool = &pool;
  const auto requests = requests_of({1, 2, 3, 4});
  CHECK_FALSE(calibrate(count, requests, options).probabilities);
  CHECK(opened == 1);
  options.probabilities = true;
  options.attention_requests = 3;
  const Calibration seen = calibrate(count, requests, options);
  CHECK(opened == 3);
  REQUIRE(seen.probabilities);
  CHECK(seen.probabilities->requests() == 3);
  CHECK(seen.probabilities->heads()[0].entries == 3);
  CHECK(seen.scales.layers[0].k[0] == 4.0f / 448);
  options.estimator.method = "attention_mse";  // shares the pass
  CHECK(calibrate(count, requests, options).probabilities->requests() == 3);
  CHECK(opened == 5);
  options.estimator.method = "vllm";
  CHECK_FALSE(calibrate(count, requests, options).probabilities);
  CHECK(opened == 6);
  options.estimator.method = "absmax";
  opened = 0;
  const OpenRun cut = [&opened](backend::KvObserver& observer) { return opener(++opened == 2 ? 1 : -1)(observer); };
  CHECK(calibrate(cut, requests, options).cancelled);  // while the probabilities are looked at
  set_interrupted(false);
}

TEST_CASE("an interrupted calibration leaves a state, from which it ends with the same scales") {
  std::vector<int> tokens;
  std::mt19937 random(1);
  for (int i = 0; i < 40; ++i) tokens.push_back(static_cast<int>(random() % 1000) + 1);
  tokens[covering_order(40)[14]] = 2000;  // what comes after the interruption moves the scales that came before it
  const auto requests = requests_of(tokens);
  const StateFile state;
  CalibratorOptions options = options_of();
  options.settle_after = 0;
  options.shape.query_heads = 1;
  const Calibration whole = calibrate(opener(), requests, options);
  options.state = state.path;
  const Calibration cut = calibrate(opener(13), requests, options);
  set_interrupted(false);
  CHECK(cut.cancelled);
  CHECK(cut.scales.layers.empty());
  REQUIRE(std::filesystem::exists(state.path));
  CalibratorOptions other = options;
  other.state_key = "another model";
  other.state_key += " ";
  {
    KvStatistics statistics(1, 1, 1);
    std::vector<Look> looks;
    CHECK_FALSE(load_statistics(state.path, statistics, looks, other.state_key));
    CHECK(looks.empty());
  }
  int seen = 0;
  options.on_finished = [&seen](int count) { seen += count; };
  const Calibration resumed = calibrate(opener(), requests, options);
  CHECK(resumed.resumed_from == 12);
  CHECK(seen == 40);
  CHECK(resumed.scales.layers[0].k == whole.scales.layers[0].k);
  CHECK(resumed.scales.samples == whole.scales.samples);
  CHECK(evidence_text(resumed, {}) == evidence_text(whole, {}));
  CHECK(resumed.statistics->of(Kind::kValue, 0).total() == 40);
  CHECK(std::filesystem::exists(state.path));  // the scales are in no file yet
}

TEST_CASE("a damaged state is refused, not used") {
  const StateFile state;
  std::ofstream(state.path) << "not a state";
  CalibratorOptions options = options_of();
  options.state = state.path;
  CHECK_THROWS_AS(calibrate(opener(), requests_of({1, 2}), options), InputError);
}

TEST_CASE("vllm looks at the first step alone, in the order of the set; an empty set is refused") {
  CalibratorOptions options = options_of();
  options.estimator.method = "vllm";
  const Calibration done = calibrate(opener(-1, 2), requests_of({40, 60, 4000, 4000}), options);
  CHECK(done.scales.layers[0].k[0] == 60.0f / 200);
  CHECK(done.requests == 2);
  CHECK(done.scales.samples == 2);
  CHECK(done.movements.empty());
  CHECK_THROWS_WITH_AS(calibrate(opener(), {}, options), doctest::Contains("empty"), InputError);
}

TEST_CASE("attention's output decides: an outlier that no query looks at may saturate") {
  // Component 0 of K is huge, and queries have nothing there: the mse of K would keep it, the output does not need it.
  constexpr int kDim = 8, kTokens = 64;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> keys(kTokens * kDim), values(kTokens * kDim), queries(kTokens * kDim);
  for (float& x : keys) x = normal(random) * 0.02f;
  for (float& x : values) x = normal(random);
  for (float& x : queries) x = normal(random) * 40;
  for (int t = 0; t < kTokens; ++t) {
    keys[static_cast<std::size_t>(t * kDim)] = t % 2 == 0 ? 400.0f : -300.0f;
    queries[static_cast<std::size_t>(t * kDim)] = 0;
  }
  const StatisticsShape shape{1, 1, kDim, 1};
  KvStatistics statistics(shape);
  statistics.observe(Kind::kKey, 0, 0, keys.data(), kTokens, kDim, {});
  statistics.observe(Kind::kValue, 0, 0, values.data(), kTokens, kDim, {});
  EstimatorOptions absmax, mse;
  mse.method = "mse";
  const ScaleSet base = estimate_scales(statistics, absmax);
  KeptRequest request(shape);
  request.observe(Kind::kKey, 0, 0, keys.data(), kTokens, kDim, {});
  request.observe(Kind::kValue, 0, 0, values.data(), kTokens, kDim, {});
  request.observe(Kind::kQuery, 0, 0, queries.data(), kTokens, kDim, {});
  ThreadPool pool(2);
  AttentionError errors(shape, base);
  errors.add(request, pool);
  const model::LayerKvScales best = errors.best_scales().layers[0];
  CHECK(best.k[0] <= base.layers[0].k[0] / 4);
  CHECK(estimate_scales(statistics, mse).layers[0].k[0] > base.layers[0].k[0] / 2);
  CHECK(best.v[0] > base.layers[0].v[0] / 2);
}
