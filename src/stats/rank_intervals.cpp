#include "stats/rank_intervals.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "stats/descriptive.h"

namespace qwenbench::stats {
namespace {

constexpr std::size_t kExactShift = 30;

/// P(U <= u) for u = 0, 1, ... under no shift and without ties: arrangements of m and n samples with U = u, by
/// whether the largest of all belongs to the m (Mann and Whitney 1947): f(m, n, u) = f(m - 1, n, u - n) + f(m, n - 1,
/// u).
std::vector<double> cumulative_u(std::size_t m, std::size_t n) {
  const std::size_t most = m * n;
  std::vector<std::vector<double>> fewer(n + 1, std::vector<double>(most + 1, 0));  // f(i - 1, j, .)
  for (std::size_t j = 0; j <= n; ++j) fewer[j][0] = 1;
  for (std::size_t i = 1; i <= m; ++i) {
    std::vector<std::vector<double>> counts(n + 1, std::vector<double>(most + 1, 0));
    counts[0][0] = 1;
    for (std::size_t j = 1; j <= n; ++j) {
      counts[j] = counts[j - 1];
      for (std::size_t u = j; u <= i * j; ++u) counts[j][u] += fewer[j][u - j];
    }
    fewer = std::move(counts);
  }
  std::vector<double> cumulative = std::move(fewer[n]);
  double total = 0;
  for (double& count : cumulative) count = total += count;
  for (double& count : cumulative) count /= total;
  return cumulative;
}

/// How many of the smallest (and of the largest) differences lie outside the interval at most; 0: the level is out of
/// reach.
std::size_t outside(std::size_t m, std::size_t n, double level) {
  const double tail = (1 - level) / 2;
  if (std::max(m, n) <= kExactShift) {
    const std::vector<double> cumulative = cumulative_u(m, n);
    std::size_t k = 0;  // P(U <= k - 1) <= tail
    while (k < cumulative.size() && cumulative[k] <= tail * (1 + 1e-12)) ++k;
    return k;
  }
  const double a = static_cast<double>(m), b = static_cast<double>(n);
  const double k = a * b / 2 - normal_quantile(1 - tail) * std::sqrt(a * b * (a + b + 1) / 12);
  return k < 1 ? 0 : static_cast<std::size_t>(k);
}

}  // namespace

std::optional<Interval> median_interval(std::span<const double> samples, double level) {
  const std::vector<double> ascending = sorted(samples);
  const std::size_t n = ascending.size();
  if (n == 0) return std::nullopt;
  const boost::math::binomial binomial(static_cast<double>(n), 0.5);
  std::size_t k = 0;  // samples below the interval; P(Binomial(n, 1/2) <= k) is the risk of each side
  while (2 * (k + 1) < n && 2 * boost::math::cdf(binomial, static_cast<double>(k + 1)) <= 1 - level) ++k;
  if (2 * boost::math::cdf(binomial, static_cast<double>(k)) > 1 - level) return std::nullopt;
  return Interval{ascending[k], ascending[n - 1 - k]};
}

Shift hodges_lehmann(std::span<const double> x, std::span<const double> y, double level) {
  if (x.empty() || y.empty()) throw std::invalid_argument("a shift needs samples on both sides");
  std::vector<double> differences;
  differences.reserve(x.size() * y.size());
  for (const double a : x) {
    for (const double b : y) differences.push_back(b - a);
  }
  std::sort(differences.begin(), differences.end());
  Shift shift;
  shift.estimate = quantile_sorted(differences, 0.5);
  const std::size_t k = outside(x.size(), y.size(), level);
  if (k > 0) shift.interval = Interval{differences[k - 1], differences[differences.size() - k]};
  return shift;
}

}  // namespace qwenbench::stats
