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

std::int64_t samples_of(const report::TimingSummary& summary, const std::string& metric) {
  if (metric.ends_with("ttft_ms")) return summary.ttft.n;
  if (metric.ends_with("tpot_ms")) return summary.tpot.n;
  if (metric.ends_with("itl_ms")) return summary.itl.n;
  return summary.e2el.n;
}

}  // namespace

std::optional<double> timing_value(const report::TimingSummary& summary, const std::string& metric) {
  if (metric.starts_with("p99_") && samples_of(summary, metric) < kTestedSamplesP99) return std::nullopt;
  VariantResult holder;
  holder.summary = summary;
  const std::optional<double> value = report::metric_value(holder, metric);
  return value && std::isfinite(*value) && *value > 0 ? value : std::nullopt;
}

TrialPairs pair_trials(const VariantResult& baseline, const VariantResult& candidate, const std::string& metric) {
  std::map<int, double> by_index;
  for (const Trial& trial : baseline.trials) {
    if (const auto value = trial_value(trial, metric)) by_index[trial.index] = *value;
  }
  TrialPairs pairs;
  for (const Trial& trial : candidate.trials) {
    const auto value = trial_value(trial, metric);
    const auto partner = by_index.find(trial.index);
    if (!value || partner == by_index.end()) continue;
    pairs.baseline.push_back(partner->second);
    pairs.candidate.push_back(*value);
  }
  return pairs;
}

Tested start_timing(const VariantResult& baseline, const VariantResult& candidate, const std::string& metric,
                    const TestOptions& options) {
  Tested tested;
  report::Comparison& comparison = tested.comparison;
  const report::MetricInfo info = report::metric_info(metric);
  comparison.metric = info.name;
  comparison.unit = info.unit;
  comparison.lower_is_better = info.lower_is_better;
  comparison.baseline = baseline.name;
  comparison.candidate = candidate.name;
  comparison.baseline_value = report::metric_value(baseline, metric);
  comparison.candidate_value = report::metric_value(candidate, metric);
  comparison.relative = true;
  comparison.minimum_effect = minimum_effect_of(metric, options.minimum_effect);
  return tested;
}

void fill_log_ratio(const LogRatio& ratio, Tested& tested) {
  report::Comparison& comparison = tested.comparison;
  const auto end = [&](double level) {
    if (ratio.std_error == 0) return 0.0;
    return stats::student_quantile(0.5 + level / 2, ratio.degrees_of_freedom) * ratio.std_error;
  };
  const double half = end(0.95), half90 = end(0.90);
  comparison.change = std::expm1(ratio.mean);
  comparison.ci_low = std::expm1(ratio.mean - half);
  comparison.ci_high = std::expm1(ratio.mean + half);
  comparison.ci90_low = std::expm1(ratio.mean - half90);
  comparison.ci90_high = std::expm1(ratio.mean + half90);
  comparison.p_value = ratio.mean == 0 ? 1 : 0;
  if (ratio.std_error > 0) {
    comparison.p_value =
        2 * stats::student_upper_tail(std::abs(ratio.mean) / ratio.std_error, ratio.degrees_of_freedom);
  }
  tested.estimate = ratio.mean;
  tested.std_error = ratio.std_error;
  tested.margin = std::log1p(comparison.minimum_effect);
}

std::vector<Tested> test_timing(const VariantResult& baseline, const VariantResult& candidate,
                                const TestOptions& options) {
  std::vector<Tested> result;
  for (const std::string& metric : options.timing_metrics) {
    const TrialPairs pairs = pair_trials(baseline, candidate, metric);
    if (pairs.baseline.empty()) continue;
    Tested& tested = result.emplace_back(start_timing(baseline, candidate, metric, options));
    tested.comparison.test = "t on log ratios";
    tested.comparison.n = static_cast<std::int64_t>(pairs.baseline.size());
    if (tested.comparison.n < 2) continue;
    const stats::MeanEstimate estimate = stats::paired_log_ratio(pairs.baseline, pairs.candidate);
    fill_log_ratio({estimate.mean, estimate.std_error, static_cast<double>(estimate.n - 1)}, tested);
    tested.smallest_p = stats::smallest_p_student(pairs.baseline.size());
  }
  return result;
}

}  // namespace qwenbench::compare
