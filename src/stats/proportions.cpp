#include "stats/proportions.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <stdexcept>

namespace qwenbench::stats {

double exact_mcnemar(Discordance discordance) {
  const double n = static_cast<double>(discordance.only_baseline + discordance.only_candidate);
  if (n == 0) return 1;
  const double smaller = static_cast<double>(std::min(discordance.only_baseline, discordance.only_candidate));
  return std::min(1.0, 2 * boost::math::cdf(boost::math::binomial(n, 0.5), smaller));
}

Interval paired_difference_interval(Discordance discordance, std::int64_t n, double level) {
  if (n < 1) throw std::invalid_argument("interval of no questions");
  const double size = static_cast<double>(n) + 2;
  const double up = (static_cast<double>(discordance.only_candidate) + 1) / size;
  const double down = (static_cast<double>(discordance.only_baseline) + 1) / size;
  const double half = normal_quantile(0.5 + level / 2) * std::sqrt((up + down - (up - down) * (up - down)) / size);
  return {std::max(-1.0, up - down - half), std::min(1.0, up - down + half)};
}

}  // namespace qwenbench::stats
