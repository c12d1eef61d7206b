// From raw samples to the numbers of a report, by the definitions of docs (shared with vLLM's benchmark):
// TTFT = first token - arrival; ITL = gaps between consecutive tokens, pooled over requests; E2EL = last token -
// arrival; TPOT = (E2EL - TTFT) / (n - 1), requests of two tokens and more; output_throughput = output tokens / wall
// time of the measured phase; decode_throughput = tokens per second of steps that only decode; goodput = completed
// requests per second that meet every slo on ttft_ms, tpot_ms, itl_ms (the request's mean) and e2el_ms. Failed requests
// are counted, and are in no latency.
#pragma once

#include <span>
#include <string>

#include "report/result.h"

namespace qwenbench::report {

/// p99 is neither printed nor tested below this many samples.
inline constexpr std::int64_t kMinimumSamplesP99 = 100;

/// Of samples in any unit; nullopt members where there are too few (see Distribution). Empty input is allowed.
Distribution distribution(std::vector<double> samples);

/// Fills `variant.trials[].summary` and `variant.summary` from the trials' counters and `variant.requests`.
void summarize(VariantResult& variant, std::span<const SloLimit> slo);

/// The per-token arrays give the quantiles, the per-request sums everything else. Standard errors are clustered by
/// request. Throws std::invalid_argument where the arrays differ in length, or hold another number of tokens than the
/// requests say (a programmer's error).
Quality summarize_quality(const QualitySamples& samples);

/// Every limit against every variant, in this order.
std::vector<SloResult> check_slo(const std::vector<VariantResult>& variants, std::span<const SloLimit> slo);

/// The value of a metric as an slo or a table names it: ttft_ms | tpot_ms | itl_ms | e2el_ms with a stat (default p50),
/// output_throughput, decode_throughput, request_throughput, request_goodput, total_token_throughput,
/// kv_cache_hit_rate, preemptions, kld_mean, ppl, same_top1, accuracy (all tasks), accuracy:TASK.
/// nullopt where it was not measured; throws InputError that names the nearest known metric where there is none such.
std::optional<double> metric_value(const VariantResult& variant, const std::string& metric,
                                   const std::string& stat = "");

}  // namespace qwenbench::report
