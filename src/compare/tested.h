// A comparison on its way from estimate to verdict. Private to src/compare.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compare/pair.h"
#include "report/result.h"

namespace qwenbench::compare {

struct Tested {
  report::Comparison comparison;
  double smallest_p = 1;  // that this many samples could have given at all
  // For the sample-size hint, on the scale where the error is symmetric (log ratio for timings).
  double estimate = 0, std_error = 0, margin = 0;
  /// The samples are equal in every pair: whatever the truth, no p below 1 was possible, and a correction need not
  /// count the test (Tarone 1990).
  bool identical = false;
};

/// An estimated ln(candidate / baseline) with Student's t.
struct LogRatio {
  double mean = 0, std_error = 0, degrees_of_freedom = 1;
};

/// change, intervals, p and what the sample-size hint needs; minimum_effect must be set.
void fill_log_ratio(const LogRatio& ratio, Tested& tested);

/// Names, units, values and the minimum effect of a timing metric.
Tested start_timing(const report::VariantResult& baseline, const report::VariantResult& candidate,
                    const std::string& metric, const TestOptions& options);

/// One statistic a trial, of the trials that both variants ran (same index).
struct TrialPairs {
  std::vector<double> baseline, candidate;
};
TrialPairs pair_trials(const report::VariantResult& baseline, const report::VariantResult& candidate,
                       const std::string& metric);

/// Null where it was not measured, is not positive, or is a p99 of too few samples (kTestedSamplesP99).
std::optional<double> timing_value(const report::TimingSummary& summary, const std::string& metric);
inline std::optional<double> trial_value(const report::Trial& trial, const std::string& metric) {
  return timing_value(trial.summary, metric);
}

/// Holm over all of them, then each metric's verdict. `drop_identical`: identical pairs are "same" without a test, and
/// not counted.
std::vector<report::Comparison> decide(std::vector<Tested> tested, double alpha, bool drop_identical);

/// Student t on log ratios of the trials with equal index: options.timing_metrics, as far as both variants have them.
std::vector<Tested> test_timing(const report::VariantResult& baseline, const report::VariantResult& candidate,
                                const TestOptions& options);

/// kld_mean, ln_ppl_ratio and same_top1 (between_files: ppl too) by bootstrap over the requests that both scored;
/// accuracy:TASK by McNemar.
std::vector<Tested> test_quality(const report::VariantResult& reference, const report::VariantResult& baseline,
                                 const report::VariantResult& candidate, const TestOptions& options);

}  // namespace qwenbench::compare
