#include "report/content.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace qwenbench::report {
namespace {

using Optional = std::optional<double>;
using Cell = std::function<std::string(const VariantResult&)>;

/// Four significant digits, never an exponent, for times and rates.
std::string number(Optional value) {
  if (!value || !std::isfinite(*value)) return "-";
  const double size = std::abs(*value);
  const int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return fmt::format("{:.{}f}", *value, decimals);
}

std::string small(Optional value) { return value && std::isfinite(*value) ? fmt::format("{:.3g}", *value) : "-"; }

std::string percent(Optional share) {
  return share && std::isfinite(*share) ? fmt::format("{:.2f}", 100 * *share) : "-";
}

std::string with_error(const std::string& value, const std::string& error) {
  return value == "-" || error == "-" ? value : fmt::format("{} ± {}", value, error);
}

class RowList {
 public:
  explicit RowList(const std::vector<VariantResult>& variants) : variants_(variants) {}

  void always(std::string label, const Cell& cell) {
    Row row{std::move(label), {}};
    for (const VariantResult& variant : variants_) row.cells.push_back(cell(variant));
    rows_.push_back(std::move(row));
  }
  /// Left out where no variant has a value.
  void where_measured(std::string label, const Cell& cell) {
    always(std::move(label), cell);
    const std::vector<std::string>& cells = rows_.back().cells;
    if (std::all_of(cells.begin(), cells.end(), [](const std::string& c) { return c == "-"; })) rows_.pop_back();
  }
  std::vector<Row> take() { return std::move(rows_); }

 private:
  const std::vector<VariantResult>& variants_;
  std::vector<Row> rows_;
};

std::string scales_of(const VariantResult& variant) {
  const KvScales& scales = variant.kv_scales;
  if (scales.method.empty() || scales.method == "none") return "-";
  if (scales.granularity.empty()) return scales.method;
  return fmt::format("{}, per {}", scales.method, scales.granularity);
}

void add_timing(RowList& rows) {
  rows.always("TTFT, median (ms)", [](const auto& v) { return number(v.summary.ttft.median); });
  rows.where_measured("TTFT, p99 (ms)", [](const auto& v) { return number(v.summary.ttft.p99); });
  rows.always("ITL, median (ms)", [](const auto& v) { return number(v.summary.itl.median); });
  rows.where_measured("ITL, p99 (ms)", [](const auto& v) { return number(v.summary.itl.p99); });
  rows.always("TPOT, median (ms)", [](const auto& v) { return number(v.summary.tpot.median); });
  rows.always("Output throughput (tok/s)", [](const auto& v) { return number(v.summary.output_throughput); });
  rows.always("Decode throughput (tok/s)", [](const auto& v) { return number(v.summary.decode_throughput); });
  rows.where_measured("Bandwidth share (%)", [](const auto& v) { return percent(v.summary.bandwidth_share); });
  rows.where_measured("Goodput (req/s)", [](const auto& v) { return number(v.summary.request_goodput); });
}

/// Names of all tasks that any variant answered, "all" last.
std::vector<TaskSummary> tasks_of(const std::vector<VariantResult>& variants) {
  std::vector<TaskSummary> tasks;
  for (const VariantResult& variant : variants) {
    if (!variant.quality) continue;
    for (const TaskSummary& task : variant.quality->tasks) {
      const auto same = [&](const TaskSummary& known) { return known.name == task.name; };
      if (std::none_of(tasks.begin(), tasks.end(), same)) tasks.push_back(task);
    }
  }
  return tasks;
}

std::string accuracy(const VariantResult& variant, const std::string& task) {
  if (!variant.quality) return "-";
  for (const TaskSummary& summary : variant.quality->tasks) {
    if (summary.name == task) return percent(summary.accuracy);
  }
  return "-";
}

void add_quality(RowList& rows, const std::vector<VariantResult>& variants) {
  const auto of_quality = [](std::function<std::string(const Quality&)> get) {
    return [get = std::move(get)](const VariantResult& v) { return v.quality ? get(*v.quality) : std::string("-"); };
  };
  rows.always("KL divergence, mean (nats/token)", of_quality([](const Quality& q) {
                return with_error(small(q.kld.mean),
                                  q.kld.mean_stderr ? fmt::format("{:.2g}", *q.kld.mean_stderr) : "-");
              }));
  rows.where_measured("KL divergence, p99 (nats)", of_quality([](const Quality& q) { return small(q.kld.p99); }));
  rows.always("Top-1 agreement (%)", of_quality([](const Quality& q) {
                return with_error(percent(q.same_top1), percent(q.same_top1_stderr));
              }));
  rows.always("Perplexity", of_quality([](const Quality& q) { return q.ppl ? fmt::format("{:.5g}", *q.ppl) : "-"; }));
  for (const TaskSummary& task : tasks_of(variants)) {
    rows.always(fmt::format("Accuracy, {} (%, n = {})", task.name, task.n),
                [&](const VariantResult& v) { return accuracy(v, task.name); });
  }
}

void add_bookkeeping(RowList& rows, const std::vector<VariantResult>& variants) {
  const auto any = [&](auto&& has) { return std::any_of(variants.begin(), variants.end(), has); };
  rows.where_measured("Prefix-cache hit rate (%)", [](const auto& v) { return percent(v.summary.kv_cache_hit_rate); });
  rows.where_measured("Energy per token (J)", [](const auto& v) { return number(v.summary.energy_per_token_j); });
  rows.where_measured("TTFT on a prefix hit, median (ms)", [](const auto& v) {
    return v.summary.prefix ? number(v.summary.prefix->ttft_hit.median) : std::string("-");
  });
  rows.where_measured("TTFT on a miss, median (ms)", [](const auto& v) {
    return v.summary.prefix ? number(v.summary.prefix->ttft_miss.median) : std::string("-");
  });
  rows.where_measured("Time in collectives (%)", [](const auto& v) { return percent(v.summary.comm_share); });
  if (any([](const VariantResult& v) { return v.summary.preemptions > 0; })) {
    rows.always("Preemptions", [](const auto& v) { return fmt::format("{}", v.summary.preemptions); });
  }
  if (any([](const VariantResult& v) { return v.summary.failed > 0; })) {
    rows.always("Failed requests", [](const auto& v) {
      return fmt::format("{} of {}", v.summary.failed, v.summary.failed + v.summary.completed);
    });
  }
}

std::vector<Row> rows_of(const Result& result) {
  RowList rows(result.variants);
  rows.always("KV cache", [](const VariantResult& v) { return v.kv_cache_dtype; });
  rows.always("KV scales", scales_of);
  add_timing(rows);
  if (!result.engine.dummy_weights()) add_quality(rows, result.variants);
  add_bookkeeping(rows, result.variants);
  return rows.take();
}

/// "+1.2 %", "-0.30 points", "+0.0012".
std::string change_text(const Comparison& comparison, Optional value) {
  if (!value) return "-";
  if (comparison.relative) return fmt::format("{:+.1f} %", 100 * *value);
  if (comparison.metric.starts_with("accuracy") || comparison.metric == "same_top1") {
    return fmt::format("{:+.2f} pt", 100 * *value);
  }
  return fmt::format("{:+.2g}", *value);
}

void add_changes(const Result& result, Content& content) {
  if (result.comparisons.empty()) return;
  const Comparison& first = result.comparisons.front();
  content.changes_title = fmt::format("{} -> {}", first.baseline, first.candidate);
  for (const Comparison& c : result.comparisons) {
    if (c.baseline != first.baseline || c.candidate != first.candidate) continue;
    const std::string interval =
        c.ci_low ? fmt::format("{} to {}", change_text(c, c.ci_low), change_text(c, c.ci_high)) : std::string("-");
    const std::string p = c.p_adjusted ? fmt::format("{:.3f}", *c.p_adjusted) : "-";
    content.changes.push_back({c.metric, change_text(c, c.change), interval, p == "0.000" ? "<0.001" : p, c.verdict});
  }
}

std::vector<std::string> header_of(const Result& result) {
  const EngineInfo& engine = result.engine;
  const WorkloadInfo& workload = result.workload;
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{} ({}), {}, {} rank{}{}", engine.model, engine.quantization, engine.device,
                              engine.tp_size, engine.tp_size == 1 ? "" : "s",
                              engine.all_reduce ? ", all-reduce " + *engine.all_reduce : ""));
  std::size_t trials = 0;
  for (const VariantResult& variant : result.variants) trials = std::max(trials, variant.trials.size());
  lines.push_back(fmt::format("{}: {} requests x {} trials a variant, at most {} at a time", workload.dataset_name,
                              workload.num_prompts, trials, workload.max_concurrency));
  if (engine.dummy_weights()) lines.push_back("random weights: speed only, no quality and no verdict");
  if (result.was_cancelled) lines.push_back("CANCELLED: partial results");
  return lines;
}

std::string slo_text(const SloResult& slo) {
  std::string limit = slo.limit.metric;
  if (!slo.limit.stat.empty()) limit += fmt::format(" {}", slo.limit.stat);
  if (slo.limit.max) limit += fmt::format(" <= {:g}", *slo.limit.max);
  if (slo.limit.min) limit += fmt::format(" >= {:g}", *slo.limit.min);
  return fmt::format("{} {}: {} for {}", slo.pass ? "pass" : "FAIL", limit,
                     slo.observed ? fmt::format("{:.4g}", *slo.observed) : "not measured", slo.variant);
}

}  // namespace

Content content_of(const Result& result) {
  Content content;
  content.header = header_of(result);
  for (const VariantResult& variant : result.variants) content.columns.push_back(variant.name);
  content.rows = rows_of(result);
  add_changes(result, content);
  for (const Warning& warning : result.warnings) {
    const std::string impact =
        warning.measured_impact ? fmt::format("; measured here: {}", *warning.measured_impact) : std::string();
    content.warnings.push_back(fmt::format("{}: {}{}", warning.code, warning.message, impact));
  }
  for (const SloResult& slo : result.slo) content.slo.push_back(slo_text(slo));
  content.verdict = result.verdict ? result.verdict->status : "none";
  if (result.verdict) {
    content.reasons = result.verdict->reasons;
  } else {
    content.reasons = {result.engine.dummy_weights() ? "random weights have no quality" : "quality was not measured"};
  }
  return content;
}

std::string definitions() {
  return "Arrival: the moment of sending; waiting for max_concurrency comes before it. TTFT: first token - arrival. "
         "ITL: gaps between consecutive tokens of a request, pooled. TPOT: (last token - first token) / (tokens - 1). "
         "Output throughput: output tokens / wall time of the measured phase. Decode throughput: tokens per second of "
         "steps that only decode. Percentiles interpolate linearly. KL divergence, top-1 agreement and perplexity: "
         "teacher-forced through the cache, natural logarithms, against the reference variant; ± is the standard error "
         "clustered by request. A change counts where the Holm-corrected p is below 0.05 and it exceeds the metric's "
         "minimum effect; \"same\" is shown by the 90 % interval inside the minimum effect.";
}

}  // namespace qwenbench::report
