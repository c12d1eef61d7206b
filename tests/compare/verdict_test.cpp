// The decision table: every branch, on synthetic experiments whose truth is known.
#include <doctest/doctest.h>

#include <algorithm>

#include "base/error.h"
#include "compare/experiment.h"
#include "compare/synthetic.h"

using namespace qwenbench;
using compare::ExperimentOptions;
using report::Comparison;
using report::Result;
using synthetic::experiment;
using synthetic::Size;

namespace {

ExperimentOptions options() {
  ExperimentOptions result;
  result.ceiling = {{"kld_mean", 0.02}};
  result.bootstrap_resamples = 2000;
  return result;
}

std::string status(Result result, const ExperimentOptions& with = options()) {
  compare::judge(result, with);
  REQUIRE(result.verdict);
  CHECK_FALSE(result.verdict->reasons.empty());
  return result.verdict->status;
}

std::string reasons(Result result, const ExperimentOptions& with = options()) {
  compare::judge(result, with);
  std::string all;
  for (const std::string& reason : result.verdict->reasons) all += reason + "\n";
  return all;
}

const Comparison& find(const Result& result, const std::string& metric, const std::string& from,
                       const std::string& to) {
  const auto found = std::find_if(result.comparisons.begin(), result.comparisons.end(), [&](const Comparison& c) {
    return c.metric == metric && c.baseline == from && c.candidate == to;
  });
  REQUIRE(found != result.comparisons.end());
  return *found;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("verdict: calibration repairs a damaged cache") {
  Result result = experiment({.kld = 0.3, .wrong_share = 0.5}, {.kld = 0.002});
  CHECK(status(result) == "adopt-calibrated");
  compare::judge(result, options());
  const Comparison& kld = find(result, "kld_mean", "baseline", "calibrated");
  CHECK(kld.verdict == "improvement");
  CHECK(kld.primary);
  CHECK(*kld.ci_low < *kld.change);
  CHECK(*kld.change < *kld.ci_high);
  CHECK(find(result, "accuracy:recall", "baseline", "calibrated").verdict == "improvement");
  CHECK(find(result, "kld_mean", "reference", "baseline").verdict == "regression");
  CHECK(find(result, "median_ttft_ms", "baseline", "calibrated").verdict == "same");
}

TEST_CASE("verdict: nothing to repair") {
  CHECK(status(experiment({.kld = 0.002}, {.kld = 0.002})) == "accept-baseline");
  // Worse by less than the minimum effect is still as good.
  CHECK(status(experiment({.kld = 0.0024}, {.kld = 0.002})) == "accept-baseline");
  // Without any ceiling the rule on it is void.
  ExperimentOptions no_ceiling = options();
  no_ceiling.ceiling.clear();
  CHECK(status(experiment({.kld = 0.002}, {.kld = 0.002}), no_ceiling) == "accept-baseline");
}

TEST_CASE("verdict: both are beyond the ceiling") {
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.1})) == "reject-fp8");
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.01})) == "adopt-calibrated");
  // The other way round: baseline within, calibrated beyond.
  CHECK(status(experiment({.kld = 0.01}, {.kld = 0.3})) == "accept-baseline");
}

TEST_CASE("verdict: ceiling on accuracy") {
  ExperimentOptions with = options();
  with.ceiling = {{"accuracy_drop", 0.05}};
  CHECK(status(experiment({.kld = 0.002, .wrong_share = 0.2}, {.kld = 0.002, .wrong_share = 0.2}), with) ==
        "reject-fp8");
  CHECK(status(experiment({.kld = 0.002}, {.kld = 0.002}), with) == "accept-baseline");
}

TEST_CASE("verdict: too few questions say how many would do") {
  const Size few{.questions = 20};
  Result result = experiment({.kld = 0.002}, {.kld = 0.002}, few);
  CHECK(status(result) == "inconclusive");
  CHECK(contains(reasons(result), "questions would decide (20 now)"));
  compare::judge(result, options());
  const Comparison& accuracy = find(result, "accuracy:recall", "baseline", "calibrated");
  CHECK(accuracy.verdict == "inconclusive");
  REQUIRE(accuracy.samples_needed);
  CHECK(*accuracy.samples_needed > 20);
  CHECK(*accuracy.samples_needed < 2000);
}

TEST_CASE("verdict: a ceiling inside the interval is not decided") {
  Result result = experiment({.kld = 0.0200}, {.kld = 0.0200}, {.questions = 600});
  CHECK(status(result) == "inconclusive");
  CHECK(contains(reasons(result), "may exceed the ceiling"));
}

TEST_CASE("verdict: timing vetoes, and only vetoes") {
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.002, .slow = 1.1})) == "inconclusive");
  CHECK(contains(reasons(experiment({.kld = 0.3}, {.kld = 0.002, .slow = 1.1})), "vetoes"));
  CHECK(status(experiment({.kld = 0.002, .slow = 1.1}, {.kld = 0.002})) == "accept-baseline");
  // A slow-down below the minimum effect is none.
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.002, .slow = 1.005})) == "adopt-calibrated");
}

TEST_CASE("verdict: slo hold for what is recommended") {
  ExperimentOptions with = options();
  with.slo = {{"ttft_ms", "p50", 50, std::nullopt}};
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.002}), with) == "inconclusive");
  CHECK(contains(reasons(experiment({.kld = 0.3}, {.kld = 0.002}), with), "missed by calibrated"));
  with.slo = {{"ttft_ms", "p50", 500, std::nullopt}};
  CHECK(status(experiment({.kld = 0.3}, {.kld = 0.002}), with) == "adopt-calibrated");
}

TEST_CASE("verdict: a difference below the noise floor is none") {
  Result result = experiment({.kld = 0.006}, {.kld = 0.002});
  CHECK(status(result) == "adopt-calibrated");
  std::mt19937_64 random(9);
  synthetic::add_quality(result.variants[0], {.kld = 0.005}, Size{}, random);
  CHECK(status(result) == "accept-baseline");
  compare::judge(result, options());
  CHECK(find(result, "kld_mean", "baseline", "calibrated").minimum_effect > 0.0045);
}

TEST_CASE("verdict: minimum effects, by metric and by group") {
  ExperimentOptions with = options();
  with.minimum_effect = {{"kld_mean", 0.5}, {"accuracy", 0.9}, {"timing", 0.2}};
  CHECK(status(experiment({.kld = 0.3, .wrong_share = 0.3}, {.kld = 0.002, .slow = 1.1}), with) == "inconclusive");
  with.ceiling.clear();
  CHECK(status(experiment({.kld = 0.3, .wrong_share = 0.3}, {.kld = 0.002, .slow = 1.1}), with) == "accept-baseline");
  with.minimum_effect = {{"kld_men", 0.5}};
  Result result = experiment({}, {}, {.questions = 4});
  CHECK_THROWS_WITH_AS(compare::judge(result, with), "unknown metric \"kld_men\"; do you mean \"kld_mean\"?",
                       InputError);
  with.minimum_effect = {{"kld_mean", -1}};
  CHECK_THROWS_AS(compare::judge(result, with), InputError);
  with.minimum_effect.clear();
  with.ceiling = {{"ppl", 3}};
  CHECK_THROWS_AS(compare::judge(result, with), InputError);
}

TEST_CASE("verdict: other names and numbers of variants") {
  Result result = experiment({.kld = 0.3}, {.kld = 0.002});
  result.variants[1].name = "unit";
  result.variants[2].name = "mse";
  CHECK(status(result) == "adopt-calibrated");
  // Roles by name, not by place.
  ExperimentOptions with = options();
  with.baseline = "mse";
  with.candidate = "unit";
  CHECK(status(result, with) == "accept-baseline");
  with.candidate = "mes";
  CHECK_THROWS_AS(compare::judge(result, with), InputError);
  with.candidate = "mse";
  CHECK_THROWS_AS(compare::judge(result, with), InputError);

  // A fourth variant is compared, and does not change the verdict.
  Result four = experiment({.kld = 0.3}, {.kld = 0.002});
  four.variants.insert(four.variants.begin() + 1, synthetic::variant("head", {.kld = 0.001}, 4));
  CHECK(status(four) == "adopt-calibrated");
  compare::judge(four, options());
  CHECK(find(four, "kld_mean", "baseline", "head").verdict == "improvement");
  find(four, "kld_mean", "reference", "head");

  // One FP8 variant alone: the ceiling can reject it, nothing can be chosen.
  Result two = experiment({.kld = 0.3}, {});
  two.variants.pop_back();
  CHECK(status(two) == "reject-fp8");
  two = experiment({}, {.kld = 0.002});
  two.variants.erase(two.variants.begin() + 1);
  CHECK(status(two) == "inconclusive");
  CHECK(contains(reasons(two), "only FP8 variant"));

  Result one = experiment({}, {});
  one.variants.resize(1);
  compare::judge(one, options());
  CHECK_FALSE(one.verdict);
  Result none;
  compare::judge(none, options());
  CHECK_FALSE(none.verdict);
}

TEST_CASE("verdict: none with dummy weights or without quality") {
  Result result = experiment({.kld = 0.3}, {.kld = 0.002});
  result.engine.weights = "dummy";
  compare::judge(result, options());
  CHECK_FALSE(result.verdict);
  result = experiment({.kld = 0.3}, {.kld = 0.002});
  for (report::VariantResult& variant : result.variants) variant.quality.reset();
  compare::judge(result, options());
  CHECK_FALSE(result.verdict);
  CHECK(find(result, "output_throughput", "baseline", "calibrated").verdict == "same");
  // Only one of the two was scored.
  result = experiment({.kld = 0.002}, {.kld = 0.002});
  result.variants[2].quality.reset();
  CHECK(status(result) == "inconclusive");
}

TEST_CASE("verdict: the reference need not be scored itself") {
  Result result = experiment({.kld = 0.3}, {.kld = 0.002});
  result.variants[0].quality.reset();
  CHECK(status(result) == "adopt-calibrated");
  compare::judge(result, options());
  CHECK(find(result, "kld_mean", "reference", "baseline").verdict == "regression");
}

TEST_CASE("verdict: NaN in a request's sums decides nothing") {
  Result result = experiment({.kld = 0.3}, {.kld = 0.002});
  result.variants[1].quality->requests[7].kld_sum = NAN;
  compare::judge(result, options());
  const Comparison& kld = find(result, "kld_mean", "baseline", "calibrated");
  CHECK_FALSE(kld.change);
  CHECK(kld.verdict == "inconclusive");
  CHECK_FALSE(kld.could_decide);
  CHECK(find(result, "same_top1", "baseline", "calibrated").change);
  CHECK(status(result) == "inconclusive");
}

TEST_CASE("verdict: failed requests") {
  Result result = experiment({.kld = 0.002}, {.kld = 0.002});
  for (std::size_t v = 1; v < 3; ++v) {
    for (report::RequestRecord& request : result.variants[v].requests) request.error = "aborted";
    report::summarize(result.variants[v], {});
  }
  CHECK(status(result) == "inconclusive");
  CHECK(contains(reasons(result), "every request of baseline failed"));
  CHECK(compare::exit_code(result) == ExitCode::kRegression);
}

TEST_CASE("exit codes") {
  Result result = experiment({.kld = 0.3}, {.kld = 0.3});
  compare::judge(result, options());
  CHECK(compare::exit_code(result) == ExitCode::kOk);
  result.slo.push_back({{"ttft_ms", "", 1, {}}, "baseline", 2, false});
  CHECK(compare::exit_code(result) == ExitCode::kRegression);
  result.was_cancelled = true;
  CHECK(compare::exit_code(result) == ExitCode::kCancelled);
}

TEST_CASE("comparison: boundaries and degenerate samples") {
  // Identical variants: no change, p = 1, the same.
  Result result = experiment({.kld = 0.002}, {.kld = 0.002});
  result.variants[2] = result.variants[1];
  result.variants[2].name = "calibrated";
  compare::judge(result, options());
  for (const Comparison& c : result.comparisons) {
    if (c.baseline != "baseline") continue;
    CAPTURE(c.metric);
    CHECK(*c.change == 0);
    CHECK(*c.p_value == 1);
    CHECK(c.verdict == "same");
  }
  // One trial, one question: nothing can be tested, and nothing breaks.
  result = experiment({.kld = 0.3}, {.kld = 0.002}, {.questions = 1, .trials = 1});
  compare::judge(result, options());
  CHECK(find(result, "median_ttft_ms", "baseline", "calibrated").verdict == "inconclusive");
  CHECK_FALSE(find(result, "median_ttft_ms", "baseline", "calibrated").could_decide);
  CHECK(find(result, "kld_mean", "baseline", "calibrated").verdict == "inconclusive");
  // Trials and requests without a partner are left out.
  result = experiment({.kld = 0.3}, {.kld = 0.002});
  result.variants[2].trials.pop_back();
  result.variants[2].quality->requests.erase(result.variants[2].quality->requests.begin());
  compare::judge(result, options());
  CHECK(find(result, "median_ttft_ms", "baseline", "calibrated").n == 11);
  CHECK(find(result, "kld_mean", "baseline", "calibrated").n == 699);
}
