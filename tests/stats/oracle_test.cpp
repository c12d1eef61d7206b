#include "stats/oracle.h"

#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "stats/clusters.h"
#include "stats/decision.h"
#include "stats/descriptive.h"
#include "stats/proportions.h"
#include "stats/rank_tests.h"
#include "stats/student.h"

using namespace qwenbench;
using doctest::Approx;

namespace {
Approx near_to(double value) { return Approx(value).epsilon(1e-9); }
}  // namespace

TEST_CASE("mean, deviation and quantiles are NumPy's") {
  for (const auto& c : oracle()["describe"]) {
    const std::vector<double> x = numbers(c["x"]), q = numbers(c["q"]), expected = numbers(c["quantiles"]);
    CHECK(stats::mean(x) == near_to(c["mean"]));
    if (x.size() > 1) CHECK(stats::sample_std(x) == near_to(c["std"]));
    for (std::size_t i = 0; i < q.size(); ++i) CHECK(stats::quantile(x, q[i]) == Approx(expected[i]).epsilon(1e-14));
  }
  CHECK_THROWS_AS(stats::mean({}), std::invalid_argument);
  CHECK_THROWS_AS(stats::sample_std(std::vector<double>{1}), std::invalid_argument);
  CHECK_THROWS_AS(stats::quantile(std::vector<double>{1}, NAN), std::invalid_argument);
}

TEST_CASE("t interval on log ratios of paired trials is SciPy's") {
  for (const auto& c : oracle()["student"]) {
    const auto estimate = stats::paired_log_ratio(numbers(c["baseline"]), numbers(c["candidate"]));
    CHECK(estimate.mean == near_to(c["mean"]));
    CHECK(estimate.std_error == near_to(c["stderr"]));
    CHECK(estimate.p_value() == near_to(c["p"]));
    CHECK(estimate.interval(0.95).low == near_to(c["ci95"][0]));
    CHECK(estimate.interval(0.95).high == near_to(c["ci95"][1]));
    CHECK(estimate.interval(0.90).low == near_to(c["ci90"][0]));
    CHECK(estimate.interval(0.90).high == near_to(c["ci90"][1]));
  }
}

TEST_CASE("t interval without spread") {
  const std::vector<double> one{1, 1, 1}, two{2, 2, 2};
  CHECK(stats::paired_log_ratio(one, one).p_value() == 1);
  CHECK(stats::paired_log_ratio(one, two).p_value() == 0);
  CHECK(stats::paired_log_ratio(one, two).interval(0.95).low == std::log(2));
  CHECK_THROWS_AS(stats::paired_log_ratio(one, std::vector<double>{1, 0, 1}), std::invalid_argument);
  CHECK_THROWS_AS(stats::paired_log_ratio(one, std::vector<double>{1, NAN, 1}), std::invalid_argument);
  CHECK_THROWS_AS(stats::paired_log_ratio(one, std::vector<double>{1, 1}), std::invalid_argument);
}

TEST_CASE("Mann-Whitney U: SciPy, and every split where there are ties") {
  for (const auto& c : oracle()["mann_whitney"]) {
    CAPTURE(c.dump());
    const auto test = stats::mann_whitney_u(numbers(c["x"]), numbers(c["y"]));
    CHECK(test.statistic == c["u"].get<double>());
    CHECK(test.exact == c["exact"].get<bool>());
    CHECK(test.p_value == near_to(c["p"]));
  }
  CHECK(stats::mann_whitney_u({}, std::vector<double>{1}).p_value == 1);
  CHECK(stats::mann_whitney_u(std::vector<double>(40, 1.0), std::vector<double>(40, 1.0)).p_value == 1);
}

TEST_CASE("signed rank: SciPy, and every choice of signs where there are ties") {
  for (const auto& c : oracle()["signed_rank"]) {
    CAPTURE(c.dump());
    const auto test = stats::wilcoxon_signed_rank(numbers(c["d"]));
    CHECK(test.statistic == c["w"].get<double>());
    CHECK(test.exact == c["exact"].get<bool>());
    CHECK(test.p_value == near_to(c["p"]));
  }
  CHECK(stats::wilcoxon_signed_rank(std::vector<double>{0, 0}).p_value == 1);
}

TEST_CASE("exact McNemar is SciPy's binomtest") {
  for (const auto& c : oracle()["mcnemar"]) {
    CHECK(stats::exact_mcnemar({c["b"], c["c"]}) == near_to(c["p"]));
  }
}

TEST_CASE("Holm") {
  for (const auto& c : oracle()["holm"]) {
    const std::vector<double> adjusted = stats::holm(numbers(c["p"])), expected = numbers(c["adjusted"]);
    REQUIRE(adjusted.size() == expected.size());
    for (std::size_t i = 0; i < adjusted.size(); ++i) CHECK(adjusted[i] == near_to(expected[i]));
  }
  CHECK(stats::holm({}).empty());
}

TEST_CASE("clustered bootstrap agrees with SciPy's to Monte-Carlo error") {
  for (const auto& c : oracle()["bootstrap"]) {
    const std::vector<double> y = numbers(c["y"]), n = numbers(c["n"]);
    CHECK(stats::clustered_ratio(y, n).ratio == near_to(c["estimate"]));
    CHECK(stats::clustered_ratio(y, n).std_error == near_to(c["clustered_stderr"]));
    const auto bootstrap = stats::bootstrap_ratios(y, 1, n, 10000, 1).front();
    const double error = c["stderr"];
    CHECK(bootstrap.estimate == near_to(c["estimate"]));
    CHECK(bootstrap.std_error() == Approx(error).epsilon(0.04));
    // The quantile of 10,000 replicates has a standard error of about 0.027 (95 %) standard deviations of theirs.
    const auto near = [&](double value, double expected) { CHECK(std::abs(value - expected) < 0.1 * error); };
    near(bootstrap.interval(0.95).low, c["ci95"][0]);
    near(bootstrap.interval(0.95).high, c["ci95"][1]);
    near(bootstrap.interval(0.90).low, c["ci90"][0]);
    near(bootstrap.interval(0.90).high, c["ci90"][1]);
    // The correction for few clusters widens, and fades.
    const double plain = bootstrap.interval(0.95).high - bootstrap.interval(0.95).low;
    const double wide = bootstrap.expanded_interval(0.95).high - bootstrap.expanded_interval(0.95).low;
    CHECK(wide > plain);
    if (y.size() >= 400) CHECK(wide < 1.02 * plain);
  }
}
