// Paired yes/no answers: the same questions asked of two variants.
#pragma once

#include <cstdint>

#include "stats/student.h"

namespace qwenbench::stats {

/// Questions that exactly one side answered correctly; those that both or neither answered do not matter to the test.
struct Discordance {
  std::int64_t only_baseline = 0, only_candidate = 0;
};

/// Exact McNemar test: only_candidate ~ Binomial(sum, 1/2); two-sided, 1 where there is no discordant pair.
double exact_mcnemar(Discordance discordance);

/// Interval of accuracy(candidate) - accuracy(baseline) over n questions: the adjusted Wald interval of Bonett and
/// Price (2012), one half-pair of each kind added. Unlike a bootstrap it does not shrink to a point where nothing was
/// discordant: few questions must not prove equality. Throws std::invalid_argument for n < 1.
Interval paired_difference_interval(Discordance discordance, std::int64_t n, double level);

}  // namespace qwenbench::stats
