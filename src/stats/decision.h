// From p-values and intervals to a decision, and what it would have taken to reach one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "stats/student.h"

namespace qwenbench::stats {

/// Holm's step-down adjustment (1979): adjusted p-values in the order of the input, at most 1. Comparing them with
/// alpha keeps the chance of any false rejection at or below alpha, however the tests depend on each other.
std::vector<double> holm(std::span<const double> p_values);

/// Two one-sided tests at 5 % (Schuirmann 1987): the 90 % interval lies inside +-margin.
bool equivalent(Interval interval90, double margin);

/// Smallest two-sided p that samples of this size can give at all, whatever their values. With m tests, m x this must
/// not exceed alpha, or nothing could ever have been decided.
double smallest_p_mann_whitney(std::size_t n1, std::size_t n2);  // 2 / C(n1 + n2, n1)
double smallest_p_signed_rank(std::size_t n);                    // 2 / 2^n
double smallest_p_mcnemar(std::size_t n);                        // all n discordant, one way: 2 / 2^n
double smallest_p_bootstrap(std::size_t clusters, int resamples);
double smallest_p_student(std::size_t n);  // 1 below two samples, else 0

/// How many units (trials, requests) would probably decide, if estimate and spread stay as they are and the standard
/// error falls with sqrt(n): with power 80 %, "same" where |estimate| < margin (the 90 % interval inside), else a
/// significant difference at `alpha` (two-sided; divide it by the number of tests yourself). nullopt where no number
/// up to a million would (estimate on the margin, no spread known). Never below n + 1.
std::optional<std::int64_t> samples_to_decide(std::int64_t n, double estimate, double std_error, double margin,
                                              double alpha);

}  // namespace qwenbench::stats
