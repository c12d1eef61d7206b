#include "compare/files/file_tests.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "report/metrics.h"
#include "stats/decision.h"
#include "stats/descriptive.h"
#include "stats/rank_intervals.h"
#include "stats/rank_tests.h"
#include "stats/student.h"

namespace qwenbench::compare {
namespace {

using report::QualityRequest;
using report::VariantResult;

bool is_quality(const std::string& metric) {
  return metric.starts_with("kld") || metric == "ppl" || metric == "ln_ppl_ratio" || metric == "same_top1" ||
         metric.starts_with("accuracy");
}

/// Values of the files that have one.
std::vector<double> values_of(const Cell& cell, const std::string& metric) {
  std::vector<double> values;
  for (const Run* run : cell) {
    const std::optional<double> value = report::metric_value(*run->variant, metric);
    if (value && std::isfinite(*value)) values.push_back(*value);
  }
  return values;
}

std::vector<double> logs(std::vector<double> values) {
  for (double& value : values) value = std::log(value);
  return values;
}

/// One value a file, of the files that can be tested on it.
std::vector<double> tested_values(const Cell& cell, const std::string& metric) {
  std::vector<double> values;
  for (const Run* run : cell) {
    if (const auto value = timing_value(run->variant->summary, metric)) values.push_back(*value);
  }
  return values;
}

/// The variance of the trials and that of the processes add up; degrees of freedom by Welch and Satterthwaite.
LogRatio with_run_noise(const stats::MeanEstimate& estimate, const RunNoise& noise) {
  const double trials = estimate.std_error * estimate.std_error, runs = 2 * noise.deviation * noise.deviation;
  const double sum = trials + runs;
  LogRatio ratio{estimate.mean, std::sqrt(sum), static_cast<double>(estimate.n - 1)};
  if (sum > 0) {
    ratio.degrees_of_freedom =
        sum * sum / (trials * trials / static_cast<double>(estimate.n - 1) + runs * runs / noise.degrees_of_freedom);
  }
  return ratio;
}

std::optional<Tested> test_trials(const Run& base, const Run& other, const std::string& metric,
                                  const TestOptions& options, const report::NoiseFile* noise) {
  const TrialPairs pairs = pair_trials(*base.variant, *other.variant, metric);
  if (pairs.baseline.empty()) return std::nullopt;
  Tested tested = start_timing(*base.variant, *other.variant, metric, options);
  const bool one_process = same_run(base, other);
  tested.comparison.test = one_process ? "t on log ratios" : "t on log ratios + noise between runs";
  tested.comparison.n = static_cast<std::int64_t>(pairs.baseline.size());
  const RunNoise of_host = noise_of(noise, base, metric);
  if (!one_process) {
    tested.comparison.minimum_effect = std::max(tested.comparison.minimum_effect, 2 * of_host.deviation);
  }
  if (pairs.baseline.size() < 2) return tested;
  const stats::MeanEstimate estimate = stats::paired_log_ratio(pairs.baseline, pairs.candidate);
  const LogRatio ratio = one_process ? LogRatio{estimate.mean, estimate.std_error, static_cast<double>(estimate.n - 1)}
                                     : with_run_noise(estimate, of_host);
  fill_log_ratio(ratio, tested);
  tested.smallest_p = stats::smallest_p_student(pairs.baseline.size());
  return tested;
}

std::optional<Tested> test_over_files(const Cell& base, const Cell& other, const std::string& metric,
                                      const TestOptions& options) {
  const std::vector<double> x = tested_values(base, metric), y = tested_values(other, metric);
  if (x.empty() || y.empty()) return std::nullopt;
  Tested tested = start_timing(*base.front()->variant, *other.front()->variant, metric, options);
  report::Comparison& comparison = tested.comparison;
  comparison.baseline_value = stats::median(x);
  comparison.candidate_value = stats::median(y);
  comparison.test = "Mann-Whitney U over files";
  comparison.n = static_cast<std::int64_t>(std::min(x.size(), y.size()));
  const std::vector<double> log_x = logs(x), log_y = logs(y);
  const stats::Shift shift = stats::hodges_lehmann(log_x, log_y, 0.95);
  const stats::Shift shift90 = stats::hodges_lehmann(log_x, log_y, 0.90);
  comparison.change = std::expm1(shift.estimate);
  if (shift.interval) {
    comparison.ci_low = std::expm1(shift.interval->low);
    comparison.ci_high = std::expm1(shift.interval->high);
  }
  if (shift90.interval) {
    comparison.ci90_low = std::expm1(shift90.interval->low);
    comparison.ci90_high = std::expm1(shift90.interval->high);
    tested.std_error = (shift90.interval->high - shift90.interval->low) / (2 * stats::normal_quantile(0.95));
  }
  comparison.p_value = stats::mann_whitney_u(log_y, log_x).p_value;
  tested.smallest_p = stats::smallest_p_mann_whitney(x.size(), y.size());
  tested.estimate = shift.estimate;
  tested.margin = std::log1p(comparison.minimum_effect);
  return tested;
}

/// Mean over the files of one side, request by request; an answer counts as correct where most files have it so.
VariantResult mean_quality(const Cell& cell) {
  VariantResult mean;
  mean.name = cell.front()->variant->name;
  const auto first = std::find_if(cell.begin(), cell.end(), [](const Run* run) { return run->variant->quality; });
  if (first == cell.end()) return mean;
  mean.quality = *(*first)->variant->quality;
  if (cell.size() == 1) return mean;
  struct Sum {
    double files = 0, answered = 0, correct = 0, kld = 0, top1 = 0, ln_p = 0, ln_p_reference = 0;
  };
  std::map<std::string, Sum> sums;
  for (const Run* run : cell) {
    if (!run->variant->quality) continue;
    for (const QualityRequest& request : run->variant->quality->requests) {
      Sum& sum = sums[request.id];
      sum.files += 1;
      sum.answered += request.correct.has_value();
      sum.correct += request.correct.value_or(false);
      sum.kld += request.kld_sum;
      sum.top1 += static_cast<double>(request.top1_matches);
      sum.ln_p += request.ln_p_sum;
      sum.ln_p_reference += request.ln_p_reference_sum;
    }
  }
  for (QualityRequest& request : mean.quality->requests) {
    const Sum& sum = sums.at(request.id);
    request.kld_sum = sum.kld / sum.files;
    request.top1_matches = std::llround(sum.top1 / sum.files);
    request.ln_p_sum = sum.ln_p / sum.files;
    request.ln_p_reference_sum = sum.ln_p_reference / sum.files;
    if (sum.answered > 0) request.correct = 2 * sum.correct > sum.answered;
  }
  return mean;
}

/// The variant that `run` was scored against: its own second scoring is the noise floor.
const VariantResult& reference_of(const Run& run) { return run.result->variants.front(); }

std::optional<Center> center_of_one(const Run& run, const std::string& metric) {
  const std::optional<double> value = report::metric_value(*run.variant, metric);
  if (!value || !std::isfinite(*value)) return std::nullopt;
  Center center{*value, std::nullopt, std::nullopt, 1};
  if (is_quality(metric)) {
    std::optional<double> error;
    if (metric == "kld_mean") error = run.variant->quality->kld.mean_stderr;
    if (metric == "ln_ppl_ratio") error = run.variant->quality->ln_ppl_ratio_stderr;
    if (metric == "same_top1") error = run.variant->quality->same_top1_stderr;
    if (error) center.low = *value - 1.96 * *error, center.high = *value + 1.96 * *error;
    return center;
  }
  std::vector<double> trials;
  for (const report::Trial& trial : run.variant->trials) {
    if (const auto of_trial = trial_value(trial, metric)) trials.push_back(std::log(*of_trial));
  }
  if (trials.size() < 2) return center;
  const stats::MeanEstimate mean = stats::estimate_mean(trials);
  const stats::Interval ci = mean.interval(0.95);
  center.low = *value * std::exp(ci.low - mean.mean);
  center.high = *value * std::exp(ci.high - mean.mean);
  return center;
}

}  // namespace

RunNoise noise_of(const report::NoiseFile* noise, const Run& run, const std::string& metric) {
  if (noise == nullptr) return {};
  const report::NoiseEntry* entry = noise->find(host_of(run.result->environment), run.result->engine.model_fingerprint,
                                                run.result->workload.requests_sha256);
  if (entry == nullptr) return {};
  const auto found = entry->metrics.find(metric);
  if (found == entry->metrics.end()) return {};
  return {found->second.deviation, static_cast<double>(found->second.degrees_of_freedom), true};
}

std::optional<Tested> test_timing_of_cells(const Cell& base, const Cell& other, const std::string& metric,
                                           const TestOptions& options, const report::NoiseFile* noise) {
  const bool single = base.size() == 1 && other.size() == 1;
  return single ? test_trials(*base.front(), *other.front(), metric, options, noise)
                : test_over_files(base, other, metric, options);
}

std::vector<Tested> test_cells(const Cell& base, const Cell& other, const TestOptions& options,
                               const report::NoiseFile* noise) {
  const bool one_file = same_run(*base.front(), *other.front());
  TestOptions of_quality = options;
  of_quality.between_files = !one_file;
  const VariantResult &reference = reference_of(*base.front()), &base_variant = *base.front()->variant;
  std::vector<Tested> all;
  if (base.size() == 1 && other.size() == 1) {
    all = test_quality(reference, base_variant, *other.front()->variant, of_quality);
  } else {
    all = test_quality(reference, mean_quality(base), mean_quality(other), of_quality);
  }
  for (const std::string& metric : options.timing_metrics) {
    std::optional<Tested> tested = test_timing_of_cells(base, other, metric, options, noise);
    if (tested) all.push_back(std::move(*tested));
  }
  return all;
}

std::optional<Center> center_of(const Cell& cell, const std::string& metric) {
  if (cell.size() == 1) return center_of_one(*cell.front(), metric);
  const std::vector<double> values = values_of(cell, metric);
  if (values.empty()) return std::nullopt;
  Center center{stats::median(values), std::nullopt, std::nullopt, static_cast<std::int64_t>(values.size())};
  if (const auto interval = stats::median_interval(values, 0.95)) {
    center.low = interval->low;
    center.high = interval->high;
  }
  return center;
}

}  // namespace qwenbench::compare
