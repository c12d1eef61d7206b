#include "stats/clusters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "stats/descriptive.h"

namespace qwenbench::stats {
namespace {

/// Uniform index below `n` (Lemire's multiplication; the bias below 2^-32 x n is far under Monte-Carlo error). The
/// standard library's distributions differ between implementations, its generators do not.
class IndexStream {
 public:
  IndexStream(std::uint64_t seed, std::size_t n) : generator_(seed), n_(n) {}
  std::size_t next() {
    if (!half_used_) {
      word_ = generator_();
      half_used_ = true;
      return scale(word_ & 0xffffffffu);
    }
    half_used_ = false;
    return scale(word_ >> 32);
  }

 private:
  std::size_t scale(std::uint64_t bits) const { return static_cast<std::size_t>((bits * n_) >> 32); }

  std::mt19937_64 generator_;
  std::uint64_t n_;
  std::uint64_t word_ = 0;
  bool half_used_ = false;
};

void check_table(std::size_t cells, std::size_t columns, std::span<const double> denominators) {
  if (denominators.size() < 2) throw std::invalid_argument("a bootstrap needs two clusters");
  if (cells != columns * denominators.size()) throw std::invalid_argument("bootstrap table of a wrong size");
  for (const double n : denominators) {
    if (!(n > 0)) throw std::invalid_argument("bootstrap cluster without units");
  }
}

}  // namespace

RatioEstimate clustered_ratio(std::span<const double> numerators, std::span<const double> denominators) {
  if (numerators.size() != denominators.size()) throw std::invalid_argument("clusters differ in number");
  RatioEstimate result;
  result.clusters = numerators.size();
  double y = 0, n = 0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    y += numerators[i];
    n += denominators[i];
  }
  result.ratio = n > 0 ? y / n : std::numeric_limits<double>::quiet_NaN();
  result.std_error = std::numeric_limits<double>::quiet_NaN();
  if (result.clusters < 2 || !(n > 0)) return result;
  double squares = 0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    const double residual = numerators[i] - result.ratio * denominators[i];
    squares += residual * residual;
  }
  const double g = static_cast<double>(result.clusters);
  result.std_error = std::sqrt(g / (g - 1) * squares) / n;
  return result;
}

double Bootstrap::std_error() const { return sample_std(replicates); }

Interval Bootstrap::interval(double level) const {
  const double tail = (1 - level) / 2;
  return {quantile_sorted(replicates, tail), quantile_sorted(replicates, 1 - tail)};
}

Interval Bootstrap::expanded_interval(double level) const {
  const double n = static_cast<double>(clusters);
  const double t = student_quantile(0.5 + level / 2, n - 1);
  const double tail = normal_upper_tail(std::sqrt(n / (n - 1)) * t);
  return {quantile_sorted(replicates, tail), quantile_sorted(replicates, 1 - tail)};
}

double Bootstrap::p_value(double null) const {
  const auto [first, last] = std::equal_range(replicates.begin(), replicates.end(), null);
  const double at_most = static_cast<double>(last - replicates.begin());
  const double at_least = static_cast<double>(replicates.end() - first);
  const double plain =
      std::min(1.0, 2 * (std::min(at_most, at_least) + 1) / (static_cast<double>(replicates.size()) + 1));
  if (plain >= 1) return 1;
  const double n = static_cast<double>(clusters);
  return 2 * student_upper_tail(std::sqrt((n - 1) / n) * normal_quantile(1 - plain / 2), n - 1);
}

std::vector<Bootstrap> bootstrap_ratios(std::span<const double> numerators_row_major, std::size_t columns,
                                        std::span<const double> denominators, int resamples, std::uint64_t seed) {
  check_table(numerators_row_major.size(), columns, denominators);
  const std::size_t clusters = denominators.size();
  std::vector<Bootstrap> result(columns);
  std::vector<double> sums(columns);
  const auto add_row = [&](std::size_t cluster) {
    const double* row = numerators_row_major.data() + cluster * columns;
    for (std::size_t c = 0; c < columns; ++c) sums[c] += row[c];
  };

  double units = 0;
  for (std::size_t i = 0; i < clusters; ++i) {
    add_row(i);
    units += denominators[i];
  }
  for (std::size_t c = 0; c < columns; ++c) {
    result[c].estimate = sums[c] / units;
    result[c].clusters = clusters;
    result[c].replicates.reserve(static_cast<std::size_t>(resamples));
  }

  IndexStream index(seed, clusters);
  for (int r = 0; r < resamples; ++r) {
    std::fill(sums.begin(), sums.end(), 0.0);
    units = 0;
    for (std::size_t i = 0; i < clusters; ++i) {
      const std::size_t cluster = index.next();
      add_row(cluster);
      units += denominators[cluster];
    }
    for (std::size_t c = 0; c < columns; ++c) result[c].replicates.push_back(sums[c] / units);
  }
  for (Bootstrap& bootstrap : result) std::sort(bootstrap.replicates.begin(), bootstrap.replicates.end());
  return result;
}

}  // namespace qwenbench::stats
