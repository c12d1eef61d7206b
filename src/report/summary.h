// From raw samples to the numbers of a report, by the definitions of docs (shared with vLLM's benchmark):
// TTFT = first token - arrival; ITL = gaps between consecutive tokens, pooled over requests; E2EL = last token -
// arrival; TPOT = (E2EL - TTFT) / (n - 1), requests of two tokens and more; output_throughput = output tokens / wall
// time of the measured phase; decode_throughput = tokens per second of steps that only decode; goodput = completed
// requests per second that meet every slo on ttft_ms, tpot_ms, itl_ms (the request's mean) and e2el_ms. Failed requests
// are counted, and are in no latency.
#pragma once

#include <span>
#include <vector>

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

}  // namespace qwenbench::report
