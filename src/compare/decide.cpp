// Correction for many tests, and the verdict of each.
#include <algorithm>
#include <cmath>

#include "compare/tested.h"
#include "stats/decision.h"

namespace qwenbench::compare {
namespace {

using report::Comparison;

std::string verdict_of(const Comparison& comparison, double alpha) {
  if (!comparison.change || !comparison.p_adjusted) return "inconclusive";
  const double change = *comparison.change;
  if (*comparison.p_adjusted < alpha && std::abs(change) > comparison.minimum_effect) {
    return (change < 0) == comparison.lower_is_better ? "improvement" : "regression";
  }
  if (!comparison.ci90_low || !comparison.ci90_high) return "inconclusive";
  const bool same = stats::equivalent({*comparison.ci90_low, *comparison.ci90_high}, comparison.minimum_effect);
  return same ? "same" : "inconclusive";
}

}  // namespace

std::vector<Comparison> decide(std::vector<Tested> tested, double alpha, bool drop_identical) {
  std::vector<double> p_values;
  const auto counts = [&](const Tested& test) {
    return test.comparison.p_value && !(drop_identical && test.identical);
  };
  for (const Tested& test : tested) {
    if (counts(test)) p_values.push_back(*test.comparison.p_value);
  }
  const std::vector<double> adjusted = stats::holm(p_values);
  const double tests = static_cast<double>(p_values.size());
  std::vector<Comparison> result;
  std::size_t next = 0;
  for (Tested& test : tested) {
    Comparison& comparison = test.comparison;
    if (counts(test)) {
      comparison.p_adjusted = adjusted[next++];
    } else if (comparison.p_value) {
      comparison.p_adjusted = 1;
    }
    comparison.could_decide = comparison.p_value && test.smallest_p * std::max(tests, 1.0) <= alpha;
    comparison.verdict = verdict_of(comparison, alpha);
    if (comparison.verdict == "inconclusive" && comparison.p_value) {
      comparison.samples_needed = stats::samples_to_decide(comparison.n, test.estimate, test.std_error, test.margin,
                                                           alpha / std::max(tests, 1.0));
    }
    result.push_back(std::move(comparison));
  }
  return result;
}

}  // namespace qwenbench::compare
