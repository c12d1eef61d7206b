// Rank tests. Two-sided p = min(1, 2 min(P(S <= s), P(S >= s))), as SciPy defines it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace qwenbench::stats {

struct RankTest {
  double statistic = 0;
  double p_value = 1;
  bool exact = false;  // from the permutation distribution; otherwise the normal approximation
};

/// Mid-ranks 1..n: tied values share the mean of their ranks.
std::vector<double> midranks(std::span<const double> samples);

/// Mann-Whitney U of `x` against `y` (number of pairs with x > y, ties count half). Exact, given the ties, up to 30
/// samples a side (Streitberg and Roehmel's shift algorithm); above that the normal approximation with tie and
/// continuity correction. p = 1 where a side is empty.
RankTest mann_whitney_u(std::span<const double> x, std::span<const double> y);

/// Wilcoxon's signed-rank test of paired differences; statistic = sum of the ranks of positive differences. Zero
/// differences are dropped (Wilcoxon's way). Exact, given the ties, up to 50 differences; above that the normal
/// approximation with tie correction. p = 1 where nothing is left.
RankTest wilcoxon_signed_rank(std::span<const double> differences);

}  // namespace qwenbench::stats
