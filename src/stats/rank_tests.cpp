#include "stats/rank_tests.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "stats/student.h"

namespace qwenbench::stats {
namespace {

constexpr std::size_t kExactU = 30;
constexpr std::size_t kExactSignedRank = 50;

/// Mid-ranks are multiples of one half; doubled they index tables.
std::vector<std::size_t> doubled(const std::vector<double>& ranks) {
  std::vector<std::size_t> result;
  for (const double rank : ranks) result.push_back(static_cast<std::size_t>(std::lround(2 * rank)));
  return result;
}

/// Sum over groups of tied ranks of t^3 - t.
double tie_term(std::vector<double> ranks) {
  std::sort(ranks.begin(), ranks.end());
  double sum = 0;
  for (std::size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    while (end < ranks.size() && ranks[end] == ranks[begin]) ++end;
    const double t = static_cast<double>(end - begin);
    sum += t * t * t - t;
  }
  return sum;
}

/// `weights[s]` = weight of the outcome with (doubled) statistic s.
double two_sided(const std::vector<double>& weights, std::size_t observed) {
  double below = 0, above = 0, total = 0;
  for (std::size_t s = 0; s < weights.size(); ++s) {
    total += weights[s];
    if (s <= observed) below += weights[s];
    if (s >= observed) above += weights[s];
  }
  return std::min(1.0, 2 * std::min(below, above) / total);
}

/// How many subsets of `take` ranks have which sum.
std::vector<double> subset_sums(const std::vector<std::size_t>& ranks, std::size_t take) {
  const std::size_t total = std::accumulate(ranks.begin(), ranks.end(), std::size_t{0});
  std::vector<std::vector<double>> counts(take + 1, std::vector<double>(total + 1, 0));
  counts[0][0] = 1;
  for (const std::size_t rank : ranks) {
    for (std::size_t k = take; k >= 1; --k) {
      for (std::size_t s = rank; s <= total; ++s) counts[k][s] += counts[k - 1][s - rank];
    }
  }
  return counts[take];
}

}  // namespace

std::vector<double> midranks(std::span<const double> samples) {
  std::vector<std::size_t> order(samples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return samples[a] < samples[b]; });
  std::vector<double> ranks(samples.size());
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && samples[order[end]] == samples[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + 1 + end) / 2;
  }
  return ranks;
}

RankTest mann_whitney_u(std::span<const double> x, std::span<const double> y) {
  RankTest result;
  if (x.empty() || y.empty()) return result;
  std::vector<double> pooled(x.begin(), x.end());
  pooled.insert(pooled.end(), y.begin(), y.end());
  const std::vector<double> ranks = midranks(pooled);
  const double n1 = static_cast<double>(x.size()), n2 = static_cast<double>(y.size()), n = n1 + n2;
  const double rank_sum = std::accumulate(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(x.size()), 0.0);
  result.statistic = rank_sum - n1 * (n1 + 1) / 2;
  if (std::max(x.size(), y.size()) <= kExactU) {
    const std::size_t observed = static_cast<std::size_t>(std::lround(2 * rank_sum));
    result.p_value = two_sided(subset_sums(doubled(ranks), x.size()), observed);
    result.exact = true;
    return result;
  }
  const double deviation = std::sqrt(n1 * n2 / 12 * ((n + 1) - tie_term(ranks) / (n * (n - 1))));
  const double distance = std::abs(result.statistic - n1 * n2 / 2) - 0.5;  // continuity
  if (deviation > 0) result.p_value = std::min(1.0, 2 * normal_upper_tail(distance / deviation));
  return result;
}

RankTest wilcoxon_signed_rank(std::span<const double> differences) {
  std::vector<double> magnitudes;
  std::vector<bool> positive;
  for (const double difference : differences) {
    if (difference == 0) continue;
    magnitudes.push_back(std::abs(difference));
    positive.push_back(difference > 0);
  }
  RankTest result;
  if (magnitudes.empty()) return result;
  const std::vector<double> ranks = midranks(magnitudes);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (positive[i]) result.statistic += ranks[i];
  }
  const double n = static_cast<double>(ranks.size());
  if (ranks.size() <= kExactSignedRank) {
    const std::vector<std::size_t> steps = doubled(ranks);
    std::vector<double> counts(std::accumulate(steps.begin(), steps.end(), std::size_t{1}), 0);
    counts[0] = 1;
    for (const std::size_t step : steps) {
      for (std::size_t s = counts.size() - 1; s >= step; --s) counts[s] += counts[s - step];
    }
    result.p_value = two_sided(counts, static_cast<std::size_t>(std::lround(2 * result.statistic)));
    result.exact = true;
    return result;
  }
  const double deviation = std::sqrt(n * (n + 1) * (2 * n + 1) / 24 - tie_term(ranks) / 48);
  result.p_value = std::min(1.0, 2 * normal_upper_tail(std::abs(result.statistic - n * (n + 1) / 4) / deviation));
  return result;
}

}  // namespace qwenbench::stats
