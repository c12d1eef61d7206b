// The metrics that tables, slo and comparisons name: one catalogue of names, units and directions.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/result.h"

namespace qwenbench::report {

struct MetricInfo {
  std::string name;  // as in the result file: median_ttft_ms, output_throughput, kld_mean, accuracy:TASK
  std::string unit;  // "ms", "tok/s", "nats/token", "" for shares (0..1) and ratios
  bool lower_is_better = true;
};

/// Names are [STAT_]{ttft,tpot,itl,e2el}_ms with STAT = mean, median, std, p50, p90, p95, p99 (none: median), the
/// scalars of TimingSummary, kld_mean, ppl, ln_ppl_ratio, same_top1, and accuracy[:TASK]. Throws InputError that names
/// the nearest known metric.
MetricInfo metric_info(const std::string& name);

/// Every limit against every variant, in this order.
std::vector<SloResult> check_slo(const std::vector<VariantResult>& variants, std::span<const SloLimit> slo);

/// The value of a metric (`stat` gives latency names without one theirs): nullopt where it was not measured;
/// throws InputError that names the nearest known metric where there is none such.
std::optional<double> metric_value(const VariantResult& variant, const std::string& metric,
                                   const std::string& stat = "");

}  // namespace qwenbench::report
