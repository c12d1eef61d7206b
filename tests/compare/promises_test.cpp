// Two promises, by simulation through the same code that judges an experiment: false alarms, and power.
#include <doctest/doctest.h>

#include <iostream>

#include "compare/experiment.h"
#include "compare/pair.h"
#include "compare/synthetic.h"

using namespace qwenbench;
using report::Comparison;
using synthetic::Size;

namespace {

const compare::TestOptions kOptions{{}, 1000, 7, 0.05};

/// baseline -> candidate of a pair with the given truths; the reference is scored without noise.
std::vector<Comparison> run_pair(const synthetic::Truth& a, const synthetic::Truth& b, std::uint64_t seed, double cv,
                                 const Size& size) {
  const report::VariantResult baseline = synthetic::variant("baseline", a, 2 * seed + 1, size, cv);
  const report::VariantResult candidate = synthetic::variant("calibrated", b, 2 * seed + 2, size, cv);
  report::VariantResult reference;
  reference.name = "reference";
  return compare::compare_variants(reference, baseline, candidate, kOptions);
}

bool is_timing(const Comparison& c) { return c.relative; }

}  // namespace

TEST_CASE("promise: at most 50 of 1,000 pairs of equal variants raise any alarm") {
  const Size size{.questions = 60, .tokens = 4, .requests = 4};
  int alarms = 0, significant = 0;
  std::size_t metrics = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    bool alarm = false, below = false;
    const auto comparisons =
        run_pair({.kld = 0.01, .wrong_share = 0.1}, {.kld = 0.01, .wrong_share = 0.1}, seed, 0.01, size);
    metrics = comparisons.size();
    for (const Comparison& c : comparisons) {
      alarm |= c.verdict == "regression" || c.verdict == "improvement";
      below |= *c.p_adjusted < 0.05;
    }
    alarms += alarm;
    significant += below;
  }
  std::cout << "family-wise false alarms over " << metrics << " metrics: " << alarms
            << " of 1000; significant after Holm, whatever the size: " << significant << " of 1000\n";
  CHECK(alarms <= 50);
  CHECK(significant <= 70);  // 5 % and three binomial deviations
}

TEST_CASE("promise: a shift of 5 % is found in 90 % of runs of 12 trials with 2.5 % between trials") {
  const Size size{.questions = 20, .tokens = 2, .requests = 4};
  constexpr int kRuns = 1000;
  int found = 0, alone = 0, in_family = 0;
  std::size_t metrics = 0;
  for (std::uint64_t seed = 0; seed < kRuns; ++seed) {
    const auto comparisons = run_pair({.kld = 0.01}, {.kld = 0.01, .slow = 1.05}, seed, 0.025, size);
    metrics = comparisons.size();
    bool any = false;
    for (const Comparison& c : comparisons) {
      any |= is_timing(c) && c.verdict == "regression";
      if (c.metric != "output_throughput") continue;
      alone += *c.p_value < 0.05 && *c.change < -c.minimum_effect;
      in_family += *c.p_value * static_cast<double>(metrics) < 0.05 && *c.change < -c.minimum_effect;
    }
    found += any;
  }
  std::cout << "power for a slow-down of 5 % among " << metrics << " metrics: " << found << " of " << kRuns
            << "; one metric alone: " << alone << "; one metric if no other moved: " << in_family << "\n";
  CHECK(found >= 900);
  CHECK(alone >= 900);
}
