#include "stats/decision.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "stats/clusters.h"
#include "stats/proportions.h"

using namespace qwenbench;
using doctest::Approx;

TEST_CASE("bootstrap: the same seed gives the same bits, several columns share their resamples") {
  const std::vector<double> rows{1, 10, 4, 40, 2, 20, 7, 70, 3, 30}, n{1, 2, 1, 3, 1};
  const auto a = stats::bootstrap_ratios(rows, 2, n, 500, 42), b = stats::bootstrap_ratios(rows, 2, n, 500, 42);
  CHECK(a[0].replicates == b[0].replicates);
  CHECK(a[0].replicates != stats::bootstrap_ratios(rows, 2, n, 500, 43)[0].replicates);
  for (std::size_t i = 0; i < 500; ++i) CHECK(a[1].replicates[i] == Approx(10 * a[0].replicates[i]));
}

TEST_CASE("bootstrap: p-values") {
  const std::vector<double> n(30, 1.0), zero(30, 0.0), one(30, 1.0);
  CHECK(stats::bootstrap_ratios(zero, 1, n, 1000, 1)[0].p_value() == 1);
  const auto sure = stats::bootstrap_ratios(one, 1, n, 1000, 1)[0];
  CHECK(sure.p_value() == Approx(stats::smallest_p_bootstrap(30, 1000)));
  CHECK(sure.p_value(1) == 1);
  // p < 0.05 exactly where the 95 % interval leaves zero out.
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 40; ++i) {
    std::vector<double> y(30);
    for (double& v : y) v = 0.35 + normal(random);
    const auto bootstrap = stats::bootstrap_ratios(y, 1, n, 2000, 1)[0];
    const bool outside = bootstrap.expanded_interval(0.95).low > 0 || bootstrap.expanded_interval(0.95).high < 0;
    const double p = bootstrap.p_value();
    if (std::abs(p - 0.05) > 0.003) CHECK(outside == (p < 0.05));
  }
}

TEST_CASE("bootstrap: what cannot be resampled is refused") {
  const std::vector<double> one{1.0}, two{1.0, 1.0}, bad{1.0, 0.0};
  CHECK_THROWS_AS(stats::bootstrap_ratios(one, 1, one, 10, 1), std::invalid_argument);
  CHECK_THROWS_AS(stats::bootstrap_ratios(two, 1, bad, 10, 1), std::invalid_argument);
  CHECK_THROWS_AS(stats::bootstrap_ratios(two, 2, two, 10, 1), std::invalid_argument);
}

TEST_CASE("interval of paired proportions: Bonett and Price's formula by hand") {
  // n = 100, 4 and 10 discordant: (11 - 5) / 102 +- 1.959964 sqrt((16/102 - (6/102)^2) / 102)
  const auto ci = stats::paired_difference_interval({4, 10}, 100, 0.95);
  CHECK(ci.low == Approx(6.0 / 102 - 1.959964 * std::sqrt((16.0 / 102 - 36.0 / 10404) / 102)).epsilon(1e-6));
  CHECK(ci.high == Approx(6.0 / 102 + 1.959964 * std::sqrt((16.0 / 102 - 36.0 / 10404) / 102)).epsilon(1e-6));
  // Twenty questions without any difference do not prove equality within two points; six hundred do.
  CHECK_FALSE(stats::equivalent(stats::paired_difference_interval({0, 0}, 20, 0.90), 0.02));
  CHECK(stats::equivalent(stats::paired_difference_interval({0, 0}, 600, 0.90), 0.02));
  // 2 % discordance, balanced, 542 questions: equivalent within two points, as the default asks.
  CHECK(stats::equivalent(stats::paired_difference_interval({5, 6}, 542, 0.90), 0.02));
}

TEST_CASE("equivalence: the ends do not count as inside") {
  CHECK(stats::equivalent({-0.01, 0.019}, 0.02));
  CHECK_FALSE(stats::equivalent({-0.01, 0.02}, 0.02));
  CHECK_FALSE(stats::equivalent({-0.02, 0.0}, 0.02));
  CHECK_FALSE(stats::equivalent({NAN, 0.0}, 0.02));
}

TEST_CASE("smallest reachable p") {
  CHECK(stats::smallest_p_mann_whitney(5, 5) == Approx(2.0 / 252));
  CHECK(10 * stats::smallest_p_mann_whitney(5, 5) > 0.05);  // five against five cannot pass Holm over ten metrics
  CHECK(10 * stats::smallest_p_mann_whitney(6, 6) < 0.05);
  CHECK(stats::smallest_p_mann_whitney(0, 5) == 1);
  CHECK(stats::smallest_p_signed_rank(6) == Approx(1.0 / 32));
  CHECK(stats::smallest_p_mcnemar(0) == 1);
  CHECK(stats::smallest_p_bootstrap(1, 10000) == 1);
  CHECK(stats::smallest_p_bootstrap(1000000, 10000) == Approx(2.0 / 10001).epsilon(1e-3));
  CHECK(stats::smallest_p_student(1) == 1);
}

TEST_CASE("sample-size hints") {
  // Same: n = 20, se 0.01, margin 0.02: 20 (2.926 x 0.01 / 0.02)^2 = 42.8 -> 43.
  CHECK(*stats::samples_to_decide(20, 0, 0.01, 0.02, 0.05) == 43);
  // Different: 20 (2.802 x 0.02 / 0.05)^2 = 25.1 -> 26.
  CHECK(*stats::samples_to_decide(20, -0.05, 0.02, 0.02, 0.05) == 26);
  CHECK(*stats::samples_to_decide(20, 0.5, 0.02, 0.02, 0.05) == 21);
  CHECK_FALSE(stats::samples_to_decide(20, 0.02 * (1 - 1e-9), 0.01, 0.02, 0.05));
  CHECK_FALSE(stats::samples_to_decide(20, 0, 0, 0.02, 0.05));
  CHECK_FALSE(stats::samples_to_decide(20, NAN, 0.01, 0.02, 0.05));
}
