#include "stats/descriptive.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace qwenbench::stats {

double mean(std::span<const double> samples) {
  if (samples.empty()) throw std::invalid_argument("mean of no samples");
  double sum = 0;
  for (const double x : samples) sum += x;
  return sum / static_cast<double>(samples.size());
}

double sample_std(std::span<const double> samples) {
  if (samples.size() < 2) throw std::invalid_argument("standard deviation needs two samples");
  const double center = mean(samples);
  double squares = 0;
  for (const double x : samples) squares += (x - center) * (x - center);
  return std::sqrt(squares / static_cast<double>(samples.size() - 1));
}

double quantile_sorted(std::span<const double> ascending, double q) {
  if (ascending.empty()) throw std::invalid_argument("quantile of no samples");
  if (!(q >= 0 && q <= 1)) throw std::invalid_argument("quantile outside 0..1");
  const double h = q * static_cast<double>(ascending.size() - 1);
  const std::size_t below = static_cast<std::size_t>(h);
  const std::size_t above = std::min(below + 1, ascending.size() - 1);
  const double t = h - static_cast<double>(below);
  const double difference = ascending[above] - ascending[below];
  // From the nearer end, as NumPy does: exact at both ends and never outside them.
  return t < 0.5 ? ascending[below] + difference * t : ascending[above] - difference * (1 - t);
}

std::vector<double> sorted(std::span<const double> samples) {
  std::vector<double> copy(samples.begin(), samples.end());
  std::sort(copy.begin(), copy.end());
  return copy;
}

double quantile(std::span<const double> samples, double q) { return quantile_sorted(sorted(samples), q); }

double median(std::span<const double> samples) { return quantile(samples, 0.5); }

}  // namespace qwenbench::stats
