#include "report/summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "stats/descriptive.h"

namespace qwenbench::report {
namespace {

constexpr double kMilliseconds = 1e3;

/// Latencies of one completed request, in milliseconds.
struct RequestLatency {
  double ttft = 0, e2el = 0;
  std::optional<double> tpot, mean_itl;
};

RequestLatency latency_of(const RequestRecord& request) {
  RequestLatency result;
  const double gaps = std::accumulate(request.itls.begin(), request.itls.end(), 0.0);
  result.ttft = *request.ttft * kMilliseconds;
  result.e2el = result.ttft + gaps * kMilliseconds;
  if (request.output_len > 1) result.tpot = gaps * kMilliseconds / (request.output_len - 1);
  if (!request.itls.empty()) result.mean_itl = gaps * kMilliseconds / static_cast<double>(request.itls.size());
  return result;
}

bool limits_requests(const SloLimit& limit) {
  return limit.metric == "ttft_ms" || limit.metric == "tpot_ms" || limit.metric == "itl_ms" ||
         limit.metric == "e2el_ms";
}

bool meets(const RequestLatency& latency, std::span<const SloLimit> slo) {
  return std::all_of(slo.begin(), slo.end(), [&](const SloLimit& limit) {
    if (!limits_requests(limit)) return true;
    std::optional<double> value = latency.e2el;
    if (limit.metric == "ttft_ms") value = latency.ttft;
    if (limit.metric == "tpot_ms") value = latency.tpot;
    if (limit.metric == "itl_ms") value = latency.mean_itl;
    if (!value) return true;  // one token has no gap that could be too long
    return (!limit.max || *value <= *limit.max) && (!limit.min || *value >= *limit.min);
  });
}

/// Samples and sums over some requests.
struct Pool {
  std::vector<double> ttft, tpot, itl, e2el;  // milliseconds
  std::vector<double> ttft_hit, ttft_miss;    // ttft once more, by what the prefix cache had
  std::int64_t good = 0;
};

void add(const RequestRecord& request, std::span<const SloLimit> slo, Pool& pool, TimingSummary& summary) {
  if (!request.completed()) {
    ++summary.failed;
    return;
  }
  ++summary.completed;
  summary.total_input_tokens += request.input_len;
  summary.total_input_vision_tokens += request.input_vision_len;
  summary.total_output_tokens += request.output_len;
  const RequestLatency latency = latency_of(request);
  pool.ttft.push_back(latency.ttft);
  if (request.cached_tokens) (*request.cached_tokens > 0 ? pool.ttft_hit : pool.ttft_miss).push_back(latency.ttft);
  pool.e2el.push_back(latency.e2el);
  if (latency.tpot) pool.tpot.push_back(*latency.tpot);
  for (const double gap : request.itls) pool.itl.push_back(gap * kMilliseconds);
  if (meets(latency, slo)) ++pool.good;
}

std::optional<double> rate(std::int64_t count, double seconds) {
  if (!(seconds > 0)) return std::nullopt;
  return static_cast<double>(count) / seconds;
}

/// Mean of the trials' shares, weighted; null where a trial has none.
std::optional<double> weighted_share(std::span<const Trial> trials, std::optional<double> Trial::*share,
                                     double Trial::*weight) {
  double sum = 0, weights = 0;
  for (const Trial& trial : trials) {
    if (!(trial.*share)) return std::nullopt;
    sum += *(trial.*share) * trial.*weight;
    weights += trial.*weight;
  }
  if (!(weights > 0)) return std::nullopt;
  return sum / weights;
}

/// Null where any trial has no reading.
std::optional<double> energy_per_token(std::span<const Trial> trials, std::int64_t tokens) {
  double joules = 0;
  for (const Trial& trial : trials) {
    if (!trial.energy_j) return std::nullopt;
    joules += *trial.energy_j;
  }
  if (trials.empty() || tokens == 0) return std::nullopt;
  return joules / static_cast<double>(tokens);
}

std::optional<PrefixSummary> prefix_summary(const Pool& pool) {
  const std::size_t all = pool.ttft_hit.size() + pool.ttft_miss.size();
  if (all == 0) return std::nullopt;
  PrefixSummary prefix;
  prefix.request_hit_rate = static_cast<double>(pool.ttft_hit.size()) / static_cast<double>(all);
  prefix.ttft_hit = distribution(pool.ttft_hit);
  prefix.ttft_miss = distribution(pool.ttft_miss);
  return prefix;
}

/// Everything that follows from the counters of `trials` and from what `add` has collected.
void finish(std::span<const Trial> trials, Pool&& pool, std::span<const SloLimit> slo, TimingSummary& summary) {
  std::int64_t decode_tokens = 0, queried = 0, hits = 0;
  double decode_seconds = 0;
  for (const Trial& trial : trials) {
    summary.duration += trial.duration;
    summary.preemptions += trial.preemptions;
    decode_tokens += trial.decode_tokens;
    decode_seconds += trial.decode_seconds;
    queried += trial.prefix_queried_tokens;
    hits += trial.prefix_hit_tokens;
  }
  summary.request_throughput = rate(summary.completed, summary.duration);
  summary.output_throughput = rate(summary.total_output_tokens, summary.duration);
  summary.total_token_throughput = rate(summary.total_input_tokens + summary.total_output_tokens, summary.duration);
  if (std::any_of(slo.begin(), slo.end(), limits_requests)) summary.request_goodput = rate(pool.good, summary.duration);
  if (decode_tokens > 0) summary.decode_throughput = rate(decode_tokens, decode_seconds);
  if (queried > 0) {
    summary.kv_cache_hit_rate = static_cast<double>(hits) / static_cast<double>(queried);
    summary.prefix = prefix_summary(pool);
  }
  summary.bandwidth_share = weighted_share(trials, &Trial::bandwidth_share, &Trial::decode_seconds);
  summary.comm_share = weighted_share(trials, &Trial::comm_share, &Trial::duration);
  summary.energy_per_token_j = energy_per_token(trials, summary.total_output_tokens);
  summary.comm_share_min = weighted_share(trials, &Trial::comm_share_min, &Trial::duration);
  summary.comm_share_max = weighted_share(trials, &Trial::comm_share_max, &Trial::duration);
  summary.ttft = distribution(std::move(pool.ttft));
  summary.tpot = distribution(std::move(pool.tpot));
  summary.itl = distribution(std::move(pool.itl));
  summary.e2el = distribution(std::move(pool.e2el));
}

}  // namespace

Distribution distribution(std::vector<double> samples) {
  Distribution result;
  result.n = static_cast<std::int64_t>(samples.size());
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  result.mean = stats::mean(samples);
  if (samples.size() >= 2) result.std = stats::sample_std(samples);
  result.median = result.p50 = stats::quantile_sorted(samples, 0.5);
  result.p90 = stats::quantile_sorted(samples, 0.90);
  result.p95 = stats::quantile_sorted(samples, 0.95);
  if (result.n >= kMinimumSamplesP99) result.p99 = stats::quantile_sorted(samples, 0.99);
  return result;
}

void summarize(VariantResult& variant, std::span<const SloLimit> slo) {
  variant.summary = {};
  Pool all;
  for (Trial& trial : variant.trials) {
    trial.summary = {};
    Pool pool;
    for (const RequestRecord& request : variant.requests) {
      if (request.trial == trial.index) add(request, slo, pool, trial.summary);
    }
    finish({&trial, 1}, std::move(pool), slo, trial.summary);
  }
  for (const RequestRecord& request : variant.requests) add(request, slo, all, variant.summary);
  finish(variant.trials, std::move(all), slo, variant.summary);
}

}  // namespace qwenbench::report
