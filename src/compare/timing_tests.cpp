#include <array>
#include <cmath>
#include <map>

#include "compare/tested.h"
#include "report/metrics.h"
#include "stats/decision.h"
#include "stats/student.h"

namespace qwenbench::compare {
namespace {

using report::Trial;
using report::VariantResult;

struct TimingMetric {
  const char* name;
  std::optional<double> (*of_trial)(const Trial&);
};

/// TPOT and end-to-end latency are functions of these: testing them too would only cost power.
constexpr std::array<TimingMetric, 5> kMetrics{{
    {"median_ttft_ms", [](const Trial& t) { return t.summary.ttft.median; }},
    {"median_itl_ms", [](const Trial& t) { return t.summary.itl.median; }},
    {"p99_itl_ms",
     [](const Trial& t) { return t.summary.itl.n >= kTestedSamplesP99 ? t.summary.itl.p99 : std::nullopt; }},
    {"output_throughput", [](const Trial& t) { return t.summary.output_throughput; }},
    {"decode_throughput", [](const Trial& t) { return t.summary.decode_throughput; }},
}};

/// One statistic a trial, of the trials that both variants ran (same index).
struct Pairs {
  std::vector<double> baseline, candidate;
};

Pairs pair_trials(const VariantResult& baseline, const VariantResult& candidate, const TimingMetric& metric) {
  const auto usable = [](std::optional<double> x) { return x && std::isfinite(*x) && *x > 0; };
  std::map<int, double> by_index;
  for (const Trial& trial : baseline.trials) {
    if (const auto value = metric.of_trial(trial); usable(value)) by_index[trial.index] = *value;
  }
  Pairs pairs;
  for (const Trial& trial : candidate.trials) {
    const auto value = metric.of_trial(trial);
    const auto partner = by_index.find(trial.index);
    if (!usable(value) || partner == by_index.end()) continue;
    pairs.baseline.push_back(partner->second);
    pairs.candidate.push_back(*value);
  }
  return pairs;
}

Tested test_metric(const VariantResult& baseline, const VariantResult& candidate, const TimingMetric& metric,
                   const Pairs& pairs, const TestOptions& options) {
  Tested tested;
  report::Comparison& comparison = tested.comparison;
  const report::MetricInfo info = report::metric_info(metric.name);
  comparison.metric = info.name;
  comparison.unit = info.unit;
  comparison.lower_is_better = info.lower_is_better;
  comparison.baseline = baseline.name;
  comparison.candidate = candidate.name;
  comparison.baseline_value = report::metric_value(baseline, metric.name);
  comparison.candidate_value = report::metric_value(candidate, metric.name);
  comparison.relative = true;
  comparison.minimum_effect = minimum_effect_of(metric.name, options.minimum_effect);
  comparison.test = "t on log ratios";
  comparison.n = static_cast<std::int64_t>(pairs.baseline.size());
  if (comparison.n < 2) return tested;

  const stats::MeanEstimate estimate = stats::paired_log_ratio(pairs.baseline, pairs.candidate);
  const stats::Interval ci = estimate.interval(0.95), ci90 = estimate.interval(0.90);
  comparison.change = std::expm1(estimate.mean);
  comparison.ci_low = std::expm1(ci.low);
  comparison.ci_high = std::expm1(ci.high);
  comparison.ci90_low = std::expm1(ci90.low);
  comparison.ci90_high = std::expm1(ci90.high);
  comparison.p_value = estimate.p_value();
  tested.smallest_p = stats::smallest_p_student(pairs.baseline.size());
  tested.estimate = estimate.mean;
  tested.std_error = estimate.std_error;
  tested.margin = std::log1p(comparison.minimum_effect);
  return tested;
}

}  // namespace

std::vector<Tested> test_timing(const VariantResult& baseline, const VariantResult& candidate,
                                const TestOptions& options) {
  std::vector<Tested> result;
  for (const TimingMetric& metric : kMetrics) {
    const Pairs pairs = pair_trials(baseline, candidate, metric);
    if (!pairs.baseline.empty()) result.push_back(test_metric(baseline, candidate, metric, pairs, options));
  }
  return result;
}

}  // namespace qwenbench::compare
