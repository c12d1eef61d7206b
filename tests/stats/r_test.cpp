// What R says of the same samples (scripts/fixtures/make_stats_fixtures.R), and SciPy of medians.
#include <doctest/doctest.h>

#include <cmath>

#include "stats/decision.h"
#include "stats/oracle.h"
#include "stats/proportions.h"
#include "stats/rank_intervals.h"
#include "stats/rank_tests.h"

using namespace qwenbench;
using doctest::Approx;

namespace {

const nlohmann::json& r() {
  static const nlohmann::json data = nlohmann::json::parse(std::ifstream("stats/data/r.json"));
  return data;
}

Approx near_to(double value) { return Approx(value).epsilon(1e-9); }

void check_interval(const std::optional<stats::Interval>& interval, const nlohmann::json& expected, bool reachable,
                    double tolerance) {
  CHECK(interval.has_value() == reachable);
  if (!interval || !reachable) return;
  CHECK(std::abs(interval->low - expected[0].get<double>()) <= tolerance);
  CHECK(std::abs(interval->high - expected[1].get<double>()) <= tolerance);
}

}  // namespace

TEST_CASE("Mann-Whitney and the shift of Hodges and Lehmann are R's wilcox.test") {
  for (const auto& c : r()["two_samples"]) {
    CAPTURE(c.dump());
    const auto x = numbers(c["x"]), y = numbers(c["y"]);
    const bool exact = c["exact"];
    const auto test = stats::mann_whitney_u(y, x);
    CHECK(test.statistic == c["u"].get<double>());
    CHECK(test.p_value == near_to(c["p"]));
    // R's approximation solves for the shift to 1e-4; ours is an order statistic, one step away at most.
    const double tolerance = exact ? 1e-12 : 0.01;
    const auto shift95 = stats::hodges_lehmann(x, y, 0.95), shift90 = stats::hodges_lehmann(x, y, 0.90);
    CHECK(std::abs(shift95.estimate - c["estimate"].get<double>()) <= (exact ? 1e-12 : 1e-3));
    check_interval(shift95.interval, c["ci95"], c["reach95"], tolerance);
    check_interval(shift90.interval, c["ci90"], c["reach90"], tolerance);
  }
  CHECK_THROWS_AS(stats::hodges_lehmann({}, std::vector<double>{1}, 0.95), std::invalid_argument);
}

TEST_CASE("signed rank, ties, McNemar and Holm are R's") {
  for (const auto& c : r()["signed_rank"]) {
    const auto test = stats::wilcoxon_signed_rank(numbers(c["d"]));
    CHECK(test.statistic == c["w"].get<double>());
    CHECK(test.p_value == near_to(c["p"]));
  }
  for (const auto& c : r()["ties"]) {
    const auto test = stats::mann_whitney_u(numbers(c["x"]), numbers(c["y"]));
    CHECK(test.statistic == c["u"].get<double>());
    CHECK(test.p_value == near_to(c["p"]));
  }
  for (const auto& c : r()["mcnemar"]) CHECK(stats::exact_mcnemar({c["b"], c["c"]}) == near_to(c["p"]));
  for (const auto& c : r()["holm"]) {
    const auto adjusted = stats::holm(numbers(c["p"])), expected = numbers(c["adjusted"]);
    for (std::size_t i = 0; i < adjusted.size(); ++i) CHECK(adjusted[i] == near_to(expected[i]));
  }
}

TEST_CASE("intervals of a median are SciPy's quantile_test") {
  for (const auto& c : oracle()["median_intervals"]) {
    CAPTURE(c.dump());
    check_interval(stats::median_interval(numbers(c["x"]), c["level"]), c["ci"], c["reached"], 0);
  }
  CHECK_FALSE(stats::median_interval({}, 0.95));
}
