#include "compare/verdict.h"

#include <fmt/format.h>

#include <algorithm>

namespace qwenbench::compare {
namespace {

using report::Comparison;
using report::Verdict;
using Reasons = std::vector<std::string>;

/// A change in the words of a report: "-3.1 %", "+0.0021 nats/token".
std::string amount(const Comparison& comparison, double value) {
  if (comparison.relative) return fmt::format("{:+.2f} %", 100 * value);
  if (comparison.metric.starts_with("accuracy") || comparison.metric == "same_top1") {
    return fmt::format("{:+.2f} points", 100 * value);
  }
  return fmt::format("{:+.3g}{}{}", value, comparison.unit.empty() ? "" : " ", comparison.unit);
}

std::string effect(const Comparison& comparison) { return amount(comparison, comparison.minimum_effect).substr(1); }

std::string describe(const Comparison& comparison) {
  if (!comparison.change) return fmt::format("{}: not testable", comparison.metric);
  return fmt::format("{}: {} -> {} changes by {} (95 % interval {} to {}, Holm-corrected p = {:.2g})",
                     comparison.metric, comparison.baseline, comparison.candidate,
                     amount(comparison, *comparison.change), amount(comparison, *comparison.ci_low),
                     amount(comparison, *comparison.ci_high), *comparison.p_adjusted);
}

std::string describe(const CeilingCheck& check, const std::string& variant) {
  if (!check.estimate) return fmt::format("{} of {} could not be measured against its ceiling", check.metric, variant);
  const char* side = check.within() ? "is within" : check.exceeded() ? "exceeds" : "may exceed";
  std::string text = fmt::format("{} of {} {} the ceiling of {:.3g}: {:.3g} (95 % interval {:.3g} to {:.3g})",
                                 check.metric, variant, side, check.ceiling, *check.estimate, *check.low, *check.high);
  if (check.samples_needed) {
    text += fmt::format("; about {} requests would decide ({} now)", *check.samples_needed, check.n);
  }
  return text;
}

void append_ceilings(const Side& side, bool all, Reasons& reasons) {
  for (const CeilingCheck& check : side.ceilings) {
    if (all || !check.within()) reasons.push_back(describe(check, side.name));
  }
}

/// Not inferior: the candidate is not better by the minimum effect or more (one-sided at 5 %).
bool not_inferior(const Comparison& comparison) {
  if (!comparison.change) return false;
  const double d = comparison.minimum_effect;
  return comparison.lower_is_better ? *comparison.ci90_low > -d : *comparison.ci90_high < d;
}

std::vector<Comparison> primaries(const std::vector<Comparison>& comparisons) {
  std::vector<Comparison> result;
  std::copy_if(comparisons.begin(), comparisons.end(), std::back_inserter(result),
               [](const Comparison& c) { return c.primary; });
  return result;
}

bool any_with(const std::vector<Comparison>& comparisons, const char* verdict) {
  return std::any_of(comparisons.begin(), comparisons.end(), [&](const Comparison& c) { return c.verdict == verdict; });
}

/// What more samples would do for a metric that blocks a decision.
std::string undecided(const Comparison& comparison) {
  std::string text = describe(comparison);
  const char* unit = comparison.relative ? "trials" : comparison.test == "McNemar" ? "questions" : "requests";
  text += fmt::format("; that is neither within +-{} nor beyond it", effect(comparison));
  if (comparison.samples_needed) {
    text += fmt::format("; about {} {} would decide ({} now)", *comparison.samples_needed, unit, comparison.n);
  } else if (comparison.change) {
    text += fmt::format("; no reachable number of {} would decide ({} now)", unit, comparison.n);
  }
  if (!comparison.could_decide) text += fmt::format("; {} {} could never have shown a difference", comparison.n, unit);
  return text;
}

bool usable(const Side& side) { return side.within_ceiling() && side.slo_holds && !side.every_request_failed; }

void append_slo(const Side& side, Reasons& reasons) {
  if (side.every_request_failed) reasons.push_back(fmt::format("every request of {} failed", side.name));
  reasons.insert(reasons.end(), side.failed_slo.begin(), side.failed_slo.end());
}

Verdict rejected(const Side& baseline, const std::optional<Side>& candidate) {
  Verdict verdict{"reject-fp8", {}};
  append_ceilings(baseline, false, verdict.reasons);
  if (candidate) append_ceilings(*candidate, false, verdict.reasons);
  return verdict;
}

Verdict adopted(const Side& candidate, const std::vector<Comparison>& comparisons) {
  Verdict verdict{"adopt-calibrated", {}};
  for (const Comparison& comparison : primaries(comparisons)) {
    if (comparison.verdict == "improvement") verdict.reasons.push_back(describe(comparison));
  }
  append_ceilings(candidate, true, verdict.reasons);
  return verdict;
}

Verdict accepted(const Side& baseline, const std::vector<Comparison>& comparisons) {
  Verdict verdict{"accept-baseline", {}};
  for (const Comparison& comparison : primaries(comparisons)) {
    verdict.reasons.push_back(
        fmt::format("{}; calibration gains less than {}", describe(comparison), effect(comparison)));
  }
  append_ceilings(baseline, true, verdict.reasons);
  return verdict;
}

Verdict undecided(const Side& baseline, const Side& candidate, const std::vector<Comparison>& comparisons) {
  Verdict verdict{"inconclusive", {}};
  Reasons& reasons = verdict.reasons;
  const bool improves = any_with(primaries(comparisons), "improvement");
  if (primaries(comparisons).empty()) reasons.push_back("no quality metric could be compared");
  for (const Comparison& comparison : comparisons) {
    if (comparison.verdict == "improvement" && comparison.primary) reasons.push_back(describe(comparison));
    if (comparison.verdict == "regression") {
      reasons.push_back(describe(comparison) + (improves ? ": a regression, which vetoes the calibrated scales" : ""));
    }
    const bool blocks = comparison.primary && comparison.verdict == "inconclusive" && !not_inferior(comparison);
    if (blocks) reasons.push_back(undecided(comparison));
  }
  append_ceilings(baseline, false, reasons);
  append_ceilings(candidate, false, reasons);
  append_slo(baseline, reasons);
  append_slo(candidate, reasons);
  return verdict;
}

}  // namespace

bool Side::within_ceiling() const {
  return std::all_of(ceilings.begin(), ceilings.end(), [](const CeilingCheck& check) { return check.within(); });
}

bool Side::over_ceiling() const {
  return std::any_of(ceilings.begin(), ceilings.end(), [](const CeilingCheck& check) { return check.exceeded(); });
}

Verdict decide_verdict(const Side& baseline, const std::optional<Side>& candidate,
                       const std::vector<Comparison>& comparisons) {
  if (baseline.over_ceiling() && (!candidate || candidate->over_ceiling())) return rejected(baseline, candidate);
  if (!candidate) {
    Verdict verdict{"inconclusive",
                    {fmt::format("{} is the only FP8 variant: nothing to choose between", baseline.name)}};
    append_ceilings(baseline, true, verdict.reasons);
    append_slo(baseline, verdict.reasons);
    return verdict;
  }
  const std::vector<Comparison> primary = primaries(comparisons);
  const bool improves = any_with(primary, "improvement");
  if (improves && !any_with(comparisons, "regression") && usable(*candidate)) return adopted(*candidate, comparisons);
  const bool suffices = !primary.empty() && std::all_of(primary.begin(), primary.end(), not_inferior);
  if (suffices && usable(baseline)) return accepted(baseline, comparisons);
  return undecided(baseline, *candidate, comparisons);
}

}  // namespace qwenbench::compare
