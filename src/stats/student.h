// Student's t on means, and on log ratios of paired trials.
#pragma once

#include <cstddef>
#include <span>

namespace qwenbench::stats {

struct Interval {
  double low = 0, high = 0;
};

/// An estimated mean with its standard error; intervals and p-values by Student's t with n - 1 degrees of freedom.
struct MeanEstimate {
  double mean = 0;
  double std_error = 0;
  std::size_t n = 0;

  /// Two-sided, e.g. level = 0.95. With a standard error of zero both ends are the mean.
  Interval interval(double level) const;
  /// Two-sided p of mean == null. With a standard error of zero: 1 where they are equal, else 0.
  double p_value(double null = 0) const;
};

/// Throws std::invalid_argument below two samples.
MeanEstimate estimate_mean(std::span<const double> samples);

/// Of ln(candidate[i] / baseline[i]): exp(mean) is the ratio of geometric means. Paired, so that what both trials of a
/// pair share (drift of the machine) cancels. Throws std::invalid_argument for unequal lengths, below two pairs, or a
/// value that is not positive and finite.
MeanEstimate paired_log_ratio(std::span<const double> baseline, std::span<const double> candidate);

/// Quantile of Student's t (p in 0..1) and of the standard normal; tail = P(T > t).
double student_quantile(double p, double degrees_of_freedom);
double student_upper_tail(double t, double degrees_of_freedom);
double normal_quantile(double p);
double normal_upper_tail(double z);

}  // namespace qwenbench::stats
