// Ratio statistics over clusters, e.g. mean KL divergence per token: tokens of one request are not independent, so the
// request is the unit of every standard error and of every resample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stats/student.h"

namespace qwenbench::stats {

/// sum(numerator) / sum(denominator) over clusters. The standard error is the linearised (sandwich) one of the ratio
/// estimator (Cochran 1977, 6.3; Liang and Zeger 1986): sqrt(G / (G - 1) sum (y - r n)^2) / sum n. It is NaN below two
/// clusters; the ratio is NaN where the denominators sum to zero.
struct RatioEstimate {
  double ratio = 0;
  double std_error = 0;
  std::size_t clusters = 0;
};
RatioEstimate clustered_ratio(std::span<const double> numerators, std::span<const double> denominators);

/// Bootstrap distribution of one ratio statistic.
struct Bootstrap {
  double estimate = 0;
  std::size_t clusters = 0;
  std::vector<double> replicates;  // ascending

  double std_error() const;
  /// Percentile interval (Efron), two-sided.
  Interval interval(double level) const;
  /// The same with the quantiles widened for few clusters: level alpha/2 becomes Phi(-sqrt(n/(n-1)) t_{1-alpha/2,n-1})
  /// (the expanded percentile interval, Hesterberg 2015); for many clusters both agree.
  Interval expanded_interval(double level) const;
  /// Two-sided p of "the statistic is null": the inversion of expanded_interval. Never below what the number of
  /// resamples can resolve; 1 where every replicate equals null.
  double p_value(double null = 0) const;
};

/// Several ratio statistics over the same clusters, resampled together: row = cluster, `columns` numerators, one
/// denominator per cluster (> 0 somewhere). Sums per cluster are formed once; a resample only adds rows.
/// Deterministic in `seed` on every platform. Throws std::invalid_argument below two clusters, for a denominator that
/// is not positive, or for wrong sizes.
std::vector<Bootstrap> bootstrap_ratios(std::span<const double> numerators_row_major, std::size_t columns,
                                        std::span<const double> denominators, int resamples, std::uint64_t seed);

}  // namespace qwenbench::stats
