#include "stats/decision.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qwenbench::stats {

std::vector<double> holm(std::span<const double> p_values) {
  const std::size_t m = p_values.size();
  std::vector<std::size_t> order(m);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(m);
  double running = 0;
  for (std::size_t i = 0; i < m; ++i) {
    running = std::max(running, std::min(1.0, static_cast<double>(m - i) * p_values[order[i]]));
    adjusted[order[i]] = running;
  }
  return adjusted;
}

bool equivalent(Interval interval90, double margin) { return interval90.low > -margin && interval90.high < margin; }

double smallest_p_mann_whitney(std::size_t n1, std::size_t n2) {
  if (n1 == 0 || n2 == 0) return 1;
  const double a = static_cast<double>(n1), b = static_cast<double>(n2);
  const double ln_choose = std::lgamma(a + b + 1) - std::lgamma(a + 1) - std::lgamma(b + 1);
  return std::min(1.0, 2 * std::exp(-ln_choose));
}

double smallest_p_signed_rank(std::size_t n) { return std::min(1.0, std::exp2(1 - static_cast<double>(n))); }

double smallest_p_mcnemar(std::size_t n) { return smallest_p_signed_rank(n); }

double smallest_p_bootstrap(std::size_t clusters, int resamples) {
  if (clusters < 2) return 1;
  const double n = static_cast<double>(clusters);
  const double plain = std::min(1.0, 2 / (static_cast<double>(resamples) + 1));
  if (plain >= 1) return 1;
  return 2 * student_upper_tail(std::sqrt((n - 1) / n) * normal_quantile(1 - plain / 2), n - 1);
}

double smallest_p_student(std::size_t n) { return n < 2 ? 1 : 0; }

std::optional<std::int64_t> samples_to_decide(std::int64_t n, double estimate, double std_error, double margin,
                                              double alpha) {
  constexpr double kPower = 0.8, kMost = 1e6;
  const double size = std::abs(estimate);
  const bool towards_same = size < margin;
  const double distance = towards_same ? margin - size : size;
  // Two one-sided tests share the risk of missing when the estimate is near zero; 0.9 a side gives 0.8 together.
  const double z = towards_same ? normal_quantile(0.95) + normal_quantile(1 - (1 - kPower) / 2)
                                : normal_quantile(1 - alpha / 2) + normal_quantile(kPower);
  if (!(std_error > 0) || !(distance > 0) || !std::isfinite(size)) return std::nullopt;
  const double needed = std::ceil(static_cast<double>(n) * std::pow(z * std_error / distance, 2));
  if (!(needed <= kMost)) return std::nullopt;
  return std::max(static_cast<std::int64_t>(needed), n + 1);
}

}  // namespace qwenbench::stats
