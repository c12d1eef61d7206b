#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "report/summary.h"
#include "stats/clusters.h"
#include "stats/descriptive.h"

namespace qwenbench::report {
namespace {

std::optional<double> if_finite(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

/// A ratio over the requests' sums and its clustered standard error.
struct Ratio {
  std::optional<double> value, std_error;
};

template <class Keep, class Numerator>
Ratio ratio(const std::vector<QualityRequest>& requests, Keep keep, Numerator numerator) {
  std::vector<double> numerators, tokens;
  for (const QualityRequest& request : requests) {
    if (request.n_tokens == 0 || !keep(request)) continue;
    numerators.push_back(static_cast<double>(numerator(request)));
    tokens.push_back(static_cast<double>(request.n_tokens));
  }
  const stats::RatioEstimate estimate = stats::clustered_ratio(numerators, tokens);
  return {if_finite(estimate.ratio), if_finite(estimate.std_error)};
}

constexpr auto kEvery = [](const QualityRequest&) { return true; };
constexpr auto kKld = [](const QualityRequest& request) { return request.kld_sum; };
constexpr auto kTop1 = [](const QualityRequest& request) { return request.top1_matches; };

/// Ascending; empty where a value is not finite: quantiles of what cannot be ordered do not exist.
std::vector<double> ascending(const std::vector<float>& values) {
  std::vector<double> result(values.begin(), values.end());
  if (!std::all_of(result.begin(), result.end(), [](double x) { return std::isfinite(x); })) return {};
  std::sort(result.begin(), result.end());
  return result;
}

std::optional<double> quantile_of(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return std::nullopt;
  return stats::quantile_sorted(sorted, q);
}

KldSummary summarize_kld(const QualitySamples& samples) {
  const Ratio mean = ratio(samples.requests, kEvery, kKld);
  const std::vector<double> sorted = ascending(samples.kld);
  KldSummary result;
  result.mean = mean.value;
  result.mean_stderr = mean.std_error;
  result.median = quantile_of(sorted, 0.5);
  result.p90 = quantile_of(sorted, 0.90);
  result.p95 = quantile_of(sorted, 0.95);
  result.p99 = quantile_of(sorted, 0.99);
  result.p999 = quantile_of(sorted, 0.999);
  result.max = quantile_of(sorted, 1);
  return result;
}

DeltaPSummary summarize_delta_p(const QualitySamples& samples) {
  const Ratio mean = ratio(samples.requests, kEvery, [](const QualityRequest& r) { return r.delta_p_sum; });
  const Ratio square = ratio(samples.requests, kEvery, [](const QualityRequest& r) { return r.delta_p_square_sum; });
  const std::vector<double> sorted = ascending(samples.delta_p);
  DeltaPSummary result;
  result.mean = mean.value;
  result.mean_stderr = mean.std_error;
  if (square.value) result.rms = std::sqrt(*square.value);
  result.min = quantile_of(sorted, 0);
  result.p01 = quantile_of(sorted, 0.01);
  result.p05 = quantile_of(sorted, 0.05);
  result.p10 = quantile_of(sorted, 0.10);
  result.p25 = quantile_of(sorted, 0.25);
  result.median = quantile_of(sorted, 0.5);
  result.p75 = quantile_of(sorted, 0.75);
  result.p90 = quantile_of(sorted, 0.90);
  result.p95 = quantile_of(sorted, 0.95);
  result.p99 = quantile_of(sorted, 0.99);
  result.max = quantile_of(sorted, 1);
  return result;
}

DivergenceSummary summarize_divergence(const std::vector<QualityRequest>& requests) {
  DivergenceSummary result;
  std::vector<double> matches, first;
  for (const QualityRequest& request : requests) {
    if (request.greedy_tokens == 0) continue;
    matches.push_back(request.exact_match_tokens);
    if (request.exact_match_tokens < request.greedy_tokens) first.push_back(request.exact_match_tokens);
  }
  result.n = static_cast<std::int64_t>(matches.size());
  result.diverged = static_cast<std::int64_t>(first.size());
  if (!matches.empty()) result.mean_exact_match_tokens = stats::mean(matches);
  if (!first.empty()) result.median_first_divergence = stats::median(first);
  return result;
}

/// Buckets 0..512, 512..1k, 1k..2k, ...; empty ones are left out.
std::vector<PositionBucket> summarize_positions(const QualitySamples& samples) {
  struct Sums {
    std::int64_t n = 0, same = 0;
    double kld = 0;
  };
  const auto bucket_of = [](std::int64_t position) {
    std::int64_t to = 512;
    while (position >= to) to *= 2;
    return to;
  };
  std::map<std::int64_t, Sums> sums;
  for (std::size_t i = 0; i < samples.position.size(); ++i) {
    Sums& bucket = sums[bucket_of(samples.position[i])];
    ++bucket.n;
    bucket.same += samples.same_top1[i];
    bucket.kld += samples.kld[i];
  }
  std::vector<PositionBucket> result;
  for (const auto& [to, bucket] : sums) {
    const double n = static_cast<double>(bucket.n);
    const std::int64_t from = to == 512 ? 0 : to / 2;
    result.push_back({from, to, bucket.n, if_finite(bucket.kld / n), static_cast<double>(bucket.same) / n});
  }
  return result;
}

std::vector<InputKindSummary> summarize_inputs(const std::vector<QualityRequest>& requests) {
  std::vector<InputKindSummary> result;
  for (const bool image : {false, true}) {
    const auto keep = [&](const QualityRequest& request) { return request.has_image == image; };
    InputKindSummary kind;
    kind.kind = image ? "image" : "text";
    for (const QualityRequest& request : requests) {
      if (request.n_tokens == 0 || !keep(request)) continue;
      ++kind.n_requests;
      kind.n_tokens += request.n_tokens;
    }
    if (kind.n_requests == 0) continue;
    const Ratio kld = ratio(requests, keep, kKld);
    kind.kld_mean = kld.value;
    kind.kld_mean_stderr = kld.std_error;
    kind.same_top1 = ratio(requests, keep, kTop1).value;
    result.push_back(kind);
  }
  return result;
}

std::vector<TaskSummary> summarize_tasks(const std::vector<QualityRequest>& requests) {
  std::map<std::string, TaskSummary> tasks;
  TaskSummary all;
  all.name = "all";
  for (const QualityRequest& request : requests) {
    if (!request.correct) continue;
    for (TaskSummary* task : {&tasks[request.task], &all}) {
      ++task->n;
      task->correct += *request.correct ? 1 : 0;
    }
  }
  std::vector<TaskSummary> result;
  for (auto& [name, task] : tasks) {
    task.name = name;
    result.push_back(task);
  }
  if (result.size() > 1) result.push_back(all);
  for (TaskSummary& task : result) task.accuracy = static_cast<double>(task.correct) / static_cast<double>(task.n);
  return result;
}

void check_lengths(const QualitySamples& samples) {
  std::int64_t tokens = 0;
  for (const QualityRequest& request : samples.requests) tokens += request.n_tokens;
  const std::size_t n = static_cast<std::size_t>(tokens);
  if (samples.kld.size() != n || samples.delta_p.size() != n || samples.same_top1.size() != n ||
      samples.position.size() != n) {
    throw std::invalid_argument("quality samples: per-token arrays and requests disagree about the number of tokens");
  }
}

}  // namespace

Quality summarize_quality(const QualitySamples& samples) {
  check_lengths(samples);
  Quality result;
  result.reference = samples.reference;
  result.n_tokens = static_cast<std::int64_t>(samples.kld.size());
  result.kld = summarize_kld(samples);
  const Ratio variant = ratio(samples.requests, kEvery, [](const QualityRequest& r) { return -r.ln_p_sum; });
  const Ratio reference =
      ratio(samples.requests, kEvery, [](const QualityRequest& r) { return -r.ln_p_reference_sum; });
  const Ratio difference =
      ratio(samples.requests, kEvery, [](const QualityRequest& r) { return r.ln_p_reference_sum - r.ln_p_sum; });
  if (variant.value) result.ppl = if_finite(std::exp(*variant.value));
  if (reference.value) result.ppl_reference = if_finite(std::exp(*reference.value));
  result.ln_ppl_ratio = difference.value;
  result.ln_ppl_ratio_stderr = difference.std_error;
  const Ratio top1 = ratio(samples.requests, kEvery, kTop1);
  result.same_top1 = top1.value;
  result.same_top1_stderr = top1.std_error;
  result.delta_p = summarize_delta_p(samples);
  result.first_divergence = summarize_divergence(samples.requests);
  result.by_position = summarize_positions(samples);
  result.by_input = summarize_inputs(samples.requests);
  result.tasks = summarize_tasks(samples.requests);
  result.requests = samples.requests;
  return result;
}

}  // namespace qwenbench::report
