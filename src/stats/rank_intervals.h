// Intervals that assume no distribution: of a median, and of the shift between two samples.
#pragma once

#include <optional>
#include <span>

#include "stats/student.h"

namespace qwenbench::stats {

/// Interval of the population's median between two order statistics (sign test inverted, exact): the narrowest
/// symmetric one whose confidence is at least `level`. nullopt where even the whole range of so few samples is not
/// (95 % needs six).
std::optional<Interval> median_interval(std::span<const double> samples, double level);

struct Shift {
  double estimate = 0;  // Hodges and Lehmann (1963): the median of all differences y[j] - x[i]
  std::optional<Interval> interval;
};

/// How much larger `y` is than `x`, with the interval that inverts the Mann-Whitney test (Hollander and Wolfe 1999,
/// 4.3): exact for samples without ties up to 30 a side, the normal approximation above. The interval is missing where
/// so few samples cannot reach `level`. Throws std::invalid_argument for an empty side.
Shift hodges_lehmann(std::span<const double> x, std::span<const double> y, double level);

}  // namespace qwenbench::stats
