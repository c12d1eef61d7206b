#include "compare/ceiling.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "stats/clusters.h"
#include "stats/decision.h"

namespace qwenbench::compare {
namespace {

using report::QualityRequest;

constexpr std::array<const char*, 3> kNames{"kld_mean", "ln_ppl_ratio", "accuracy_drop"};

void check_tokens(const report::Quality& quality, const TestOptions& options, CeilingCheck& check) {
  std::vector<double> sums, tokens;
  for (const QualityRequest& request : quality.requests) {
    if (request.n_tokens <= 0) continue;
    const double sum = check.metric == "kld_mean" ? request.kld_sum : request.ln_p_reference_sum - request.ln_p_sum;
    if (!std::isfinite(sum)) return;
    sums.push_back(sum);
    tokens.push_back(static_cast<double>(request.n_tokens));
  }
  check.n = static_cast<std::int64_t>(tokens.size());
  if (tokens.size() < 2) return;
  const stats::Bootstrap bootstrap =
      stats::bootstrap_ratios(sums, 1, tokens, options.bootstrap_resamples, options.bootstrap_seed).front();
  const stats::Interval ci = bootstrap.expanded_interval(0.95);
  check.estimate = bootstrap.estimate;
  check.low = ci.low;
  check.high = ci.high;
}

void check_accuracy(const std::vector<report::Comparison>& against_reference, CeilingCheck& check) {
  for (const report::Comparison& comparison : against_reference) {
    if (!comparison.metric.starts_with("accuracy") || !comparison.change) continue;
    const double drop = -*comparison.change;
    if (check.estimate && drop <= *check.estimate) continue;
    check.estimate = drop;
    check.low = -*comparison.ci_high;
    check.high = -*comparison.ci_low;
    check.n = comparison.n;
  }
}

}  // namespace

void check_ceiling_names(const std::map<std::string, double>& ceiling) {
  for (const auto& [name, value] : ceiling) {
    if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
      throw InputError(fmt::format(
          "no quality ceiling can be set for \"{}\": use kld_mean, ln_ppl_ratio or accuracy_drop", one_line(name, 60)));
    }
    if (!(value > 0) || !std::isfinite(value)) {
      throw InputError(fmt::format("the quality ceiling of {} is {}: give a number above 0", name, value));
    }
  }
}

std::vector<CeilingCheck> check_ceilings(const report::VariantResult& variant,
                                         const std::vector<report::Comparison>& against_reference,
                                         const std::map<std::string, double>& ceiling, const TestOptions& options) {
  std::vector<CeilingCheck> result;
  for (const auto& [name, value] : ceiling) {
    CeilingCheck& check = result.emplace_back();
    check.metric = name;
    check.ceiling = value;
    if (name == "accuracy_drop") {
      check_accuracy(against_reference, check);
    } else if (variant.quality) {
      check_tokens(*variant.quality, options, check);
    }
    if (!check.estimate || check.within() || check.exceeded()) continue;
    const double distance = std::abs(check.ceiling - *check.estimate);
    const double std_error = (*check.high - *check.low) / (2 * stats::normal_quantile(0.975));
    check.samples_needed = stats::samples_to_decide(check.n, distance, std_error, 0, options.alpha);
  }
  return result;
}

}  // namespace qwenbench::compare
