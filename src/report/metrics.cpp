#include "report/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"

namespace qwenbench::report {
namespace {

using Optional = std::optional<double>;

struct Stat {
  std::string_view name;
  Optional Distribution::*member;
};
constexpr std::array<Stat, 7> kStats{{{"mean", &Distribution::mean},
                                      {"median", &Distribution::median},
                                      {"std", &Distribution::std},
                                      {"p50", &Distribution::p50},
                                      {"p90", &Distribution::p90},
                                      {"p95", &Distribution::p95},
                                      {"p99", &Distribution::p99}}};

struct Latency {
  std::string_view name;
  Distribution TimingSummary::*member;
};
constexpr std::array<Latency, 4> kLatencies{{{"ttft_ms", &TimingSummary::ttft},
                                             {"tpot_ms", &TimingSummary::tpot},
                                             {"itl_ms", &TimingSummary::itl},
                                             {"e2el_ms", &TimingSummary::e2el}}};

struct Scalar {
  std::string_view name, unit;
  bool lower_is_better;
  Optional (*value)(const VariantResult&);
};

Optional quality_value(const VariantResult& variant, Optional (*get)(const Quality&)) {
  return variant.quality ? get(*variant.quality) : std::nullopt;
}

Optional prefix_value(const VariantResult& variant, Optional (*get)(const PrefixSummary&)) {
  return variant.summary.prefix ? get(*variant.summary.prefix) : std::nullopt;
}

constexpr std::array<Scalar, 17> kScalars{{
    {"request_throughput", "req/s", false, [](const VariantResult& v) { return v.summary.request_throughput; }},
    {"request_goodput", "req/s", false, [](const VariantResult& v) { return v.summary.request_goodput; }},
    {"output_throughput", "tok/s", false, [](const VariantResult& v) { return v.summary.output_throughput; }},
    {"total_token_throughput", "tok/s", false, [](const VariantResult& v) { return v.summary.total_token_throughput; }},
    {"decode_throughput", "tok/s", false, [](const VariantResult& v) { return v.summary.decode_throughput; }},
    {"bandwidth_share", "", false, [](const VariantResult& v) { return v.summary.bandwidth_share; }},
    {"kv_cache_hit_rate", "", false, [](const VariantResult& v) { return v.summary.kv_cache_hit_rate; }},
    {"median_ttft_hit_ms", "ms", true,
     [](const VariantResult& v) { return prefix_value(v, [](const PrefixSummary& p) { return p.ttft_hit.median; }); }},
    {"median_ttft_miss_ms", "ms", true,
     [](const VariantResult& v) { return prefix_value(v, [](const PrefixSummary& p) { return p.ttft_miss.median; }); }},
    {"request_hit_rate", "", false,
     [](const VariantResult& v) { return prefix_value(v, [](const PrefixSummary& p) { return p.request_hit_rate; }); }},
    {"comm_share", "", true, [](const VariantResult& v) { return v.summary.comm_share; }},
    {"preemptions", "", true, [](const VariantResult& v) { return Optional(double(v.summary.preemptions)); }},
    {"failed", "requests", true, [](const VariantResult& v) { return Optional(double(v.summary.failed)); }},
    {"kld_mean", "nats/token", true,
     [](const VariantResult& v) { return quality_value(v, [](const Quality& q) { return q.kld.mean; }); }},
    {"ppl", "", true, [](const VariantResult& v) { return quality_value(v, [](const Quality& q) { return q.ppl; }); }},
    {"ln_ppl_ratio", "", true,
     [](const VariantResult& v) { return quality_value(v, [](const Quality& q) { return q.ln_ppl_ratio; }); }},
    {"same_top1", "", false,
     [](const VariantResult& v) { return quality_value(v, [](const Quality& q) { return q.same_top1; }); }},
}};

constexpr std::string_view kAccuracy = "accuracy";

/// `name` = [STAT_]LATENCY; null members where it is no such name.
struct LatencyName {
  const Stat* stat = nullptr;
  const Latency* latency = nullptr;
};

LatencyName parse_latency(std::string_view name) {
  for (const Latency& latency : kLatencies) {
    if (name == latency.name) return {&kStats[1], &latency};
    for (const Stat& stat : kStats) {
      if (name == std::string(stat.name) + "_" + std::string(latency.name)) return {&stat, &latency};
    }
  }
  return {};
}

const Scalar* find_scalar(std::string_view name) {
  const auto found = std::find_if(kScalars.begin(), kScalars.end(), [&](const Scalar& s) { return s.name == name; });
  return found == kScalars.end() ? nullptr : &*found;
}

/// The task of "accuracy:TASK", "all" for "accuracy"; nullopt for other names.
std::optional<std::string> accuracy_task(std::string_view name) {
  if (name == kAccuracy) return "all";
  if (name.starts_with("accuracy:")) return std::string(name.substr(kAccuracy.size() + 1));
  return std::nullopt;
}

[[noreturn]] void unknown_metric(const std::string& name) {
  std::vector<std::string> known{std::string(kAccuracy)};
  for (const Scalar& scalar : kScalars) known.emplace_back(scalar.name);
  for (const Latency& latency : kLatencies) {
    known.emplace_back(latency.name);
    for (const Stat& stat : kStats) known.push_back(std::string(stat.name) + "_" + std::string(latency.name));
  }
  const std::string nearest = nearest_name(name, known);
  throw InputError(
      fmt::format("unknown metric \"{}\"{}", one_line(name, 60),
                  nearest.empty() ? "; see the definitions in docs" : "; do you mean \"" + nearest + "\"?"));
}

Optional accuracy_of(const VariantResult& variant, const std::string& task) {
  if (!variant.quality) return std::nullopt;
  const std::vector<TaskSummary>& tasks = variant.quality->tasks;
  if (task == "all" && tasks.size() == 1) return tasks.front().accuracy;
  for (const TaskSummary& summary : tasks) {
    if (summary.name == task) return summary.accuracy;
  }
  return std::nullopt;
}

}  // namespace

MetricInfo metric_info(const std::string& name) {
  if (parse_latency(name).latency) return {name, "ms", true};
  if (const Scalar* scalar = find_scalar(name)) return {name, std::string(scalar->unit), scalar->lower_is_better};
  if (accuracy_task(name)) return {name, "", false};
  unknown_metric(name);
}

std::optional<double> metric_value(const VariantResult& variant, const std::string& metric, const std::string& stat) {
  const std::string name = stat.empty() ? metric : stat + "_" + metric;
  if (const LatencyName latency = parse_latency(name); latency.latency) {
    return variant.summary.*(latency.latency->member).*(latency.stat->member);
  }
  if (const Scalar* scalar = find_scalar(name)) return scalar->value(variant);
  if (const std::optional<std::string> task = accuracy_task(name)) return accuracy_of(variant, *task);
  unknown_metric(name);
}

std::vector<SloResult> check_slo(const std::vector<VariantResult>& variants, std::span<const SloLimit> slo) {
  std::vector<SloResult> results;
  for (const SloLimit& limit : slo) {
    for (const VariantResult& variant : variants) {
      SloResult result{limit, variant.name, metric_value(variant, limit.metric, limit.stat), false};
      if (result.observed) {
        result.pass = (!limit.max || *result.observed <= *limit.max) && (!limit.min || *result.observed >= *limit.min);
      }
      results.push_back(std::move(result));
    }
  }
  return results;
}

}  // namespace qwenbench::report
