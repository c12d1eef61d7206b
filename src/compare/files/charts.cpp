#include "compare/files/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>

namespace qwenbench::compare {
namespace {

using html::Chart;
using html::Series;
using html::Table;

std::string number(std::optional<double> value) {
  return value && std::isfinite(*value) ? fmt::format("{:.4g}", *value) : "-";
}

std::string too_many(std::size_t count) {
  return count <= kMostSeries ? ""
                              : fmt::format("The first {} of {} are drawn; the table has all.", kMostSeries, count);
}

std::optional<Chart> latency_chart(const std::vector<NamedRun>& runs, const std::string& id, const std::string& title,
                                   const std::string& label, std::vector<double> LatencyCurves::*curve) {
  constexpr std::array<int, 7> kShown{1, 10, 50, 90, 95, 99, 100};
  Chart chart;
  chart.kind = Chart::Kind::kLines;
  chart.id = id;
  chart.title = title;
  chart.x_label = label;
  chart.y_label = "share of samples (%)";
  chart.x_logarithmic = true;
  chart.table = {title + ", ms", {"run"}, {}};
  for (const int percent : kShown) chart.table.head.push_back(percent == 100 ? "max" : fmt::format("p{}", percent));
  for (const NamedRun& named : runs) {
    const std::vector<double>& quantiles = named.run->curves.*curve;
    if (quantiles.empty()) continue;
    std::vector<std::string> row{named.name};
    for (const int percent : kShown) row.push_back(number(quantiles[static_cast<std::size_t>(percent)]));
    chart.table.rows.push_back(std::move(row));
    if (chart.series.size() == kMostSeries) continue;
    Series& series = chart.series.emplace_back(Series{named.name});
    for (std::size_t i = 0; i < quantiles.size(); ++i) {
      if (quantiles[i] > 0) series.points.emplace_back(quantiles[i], static_cast<double>(i));
    }
  }
  if (chart.series.empty()) return std::nullopt;
  chart.note = too_many(chart.table.rows.size());
  return chart;
}

/// One row of a heat map: a value a layer.
struct HeatRow {
  std::string name;
  std::vector<std::optional<double>> values;
};

using OfLayer = std::function<std::optional<double>(const report::LayerScales&)>;

void add_heat_row(const NamedRun& named, const std::string& what, const OfLayer& of_layer, std::vector<HeatRow>& rows) {
  HeatRow row{fmt::format("{}: {}", named.name, what), {}};
  for (const report::LayerScales& layer : named.run->variant->kv_scales.layers) row.values.push_back(of_layer(layer));
  const bool any = std::any_of(row.values.begin(), row.values.end(), [](const auto& v) { return v.has_value(); });
  if (any) rows.push_back(std::move(row));
}

std::optional<Chart> heat_chart(const std::string& id, const std::string& title, const std::string& note,
                                const std::vector<HeatRow>& rows) {
  if (rows.empty()) return std::nullopt;
  Chart chart;
  chart.kind = Chart::Kind::kHeatMap;
  chart.id = id;
  chart.title = title;
  chart.note = note;
  chart.x_label = "layer";
  chart.table = {title, {"run"}, {}};
  double low = INFINITY, high = -INFINITY;
  std::size_t columns = 0;
  for (const HeatRow& row : rows) {
    chart.categories.push_back(row.name);
    chart.cells.push_back(row.values);
    columns = std::max(columns, row.values.size());
    std::vector<std::string> line{row.name};
    for (const auto& value : row.values) {
      line.push_back(number(value));
      if (value) low = std::min(low, *value), high = std::max(high, *value);
    }
    chart.table.rows.push_back(std::move(line));
  }
  for (std::size_t i = 0; i < columns; ++i) chart.table.head.push_back(fmt::format("layer {}", i));
  chart.cell_low = low;
  chart.cell_high = high;
  return chart;
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

std::optional<double> log2_scale(const std::vector<double>& scale) {
  if (scale.empty()) return std::nullopt;
  return std::log2(geometric_mean(scale));
}

}  // namespace

std::vector<Chart> latency_charts(const std::vector<NamedRun>& runs) {
  std::vector<Chart> charts;
  if (auto chart = latency_chart(runs, "ttft", "Time to the first token", "TTFT (ms)", &LatencyCurves::ttft)) {
    charts.push_back(std::move(*chart));
  }
  if (auto chart = latency_chart(runs, "itl", "Gaps between tokens", "ITL (ms)", &LatencyCurves::itl)) {
    charts.push_back(std::move(*chart));
  }
  return charts;
}

Chart throughput_chart(const std::vector<NamedRun>& runs) {
  Chart chart;
  chart.kind = Chart::Kind::kPoints;
  chart.id = "throughput";
  chart.title = "Throughput against latency";
  chart.note = "One point a trial: right is slower to begin, up is more tokens a second. " + too_many(runs.size());
  chart.x_label = "median TTFT (ms)";
  chart.y_label = "output tokens/s";
  chart.table = {"Output throughput and latency of each run",
                 {"run", "output tok/s", "decode tok/s", "median TTFT (ms)", "median ITL (ms)", "median E2E (ms)"},
                 {}};
  for (const NamedRun& named : runs) {
    const report::TimingSummary& summary = named.run->variant->summary;
    chart.table.rows.push_back({named.name, number(summary.output_throughput), number(summary.decode_throughput),
                                number(summary.ttft.median), number(summary.itl.median), number(summary.e2el.median)});
    if (chart.series.size() == kMostSeries) continue;
    Series& series = chart.series.emplace_back(Series{named.name});
    for (const report::Trial& trial : named.run->variant->trials) {
      if (!trial.summary.ttft.median || !trial.summary.output_throughput) continue;
      series.points.emplace_back(*trial.summary.ttft.median, *trial.summary.output_throughput);
      series.labels.push_back(fmt::format("{}, trial {}", named.name, trial.index));
    }
  }
  return chart;
}

std::vector<Chart> position_charts(const std::vector<NamedRun>& runs) {
  Chart chart;
  chart.kind = Chart::Kind::kLines;
  chart.id = "position";
  chart.title = "KL divergence from the reference, by position";
  chart.x_label = "position in the sequence from (tokens)";
  chart.y_label = "nats/token";
  chart.table = {"Mean KL divergence (nats/token) by position", {"run"}, {}};
  std::set<std::int64_t> buckets;
  for (const NamedRun& named : runs) {
    if (!named.run->variant->quality) continue;
    for (const auto& bucket : named.run->variant->quality->by_position) buckets.insert(bucket.from);
  }
  for (const std::int64_t from : buckets) chart.table.head.push_back(fmt::format("from {}", from));
  for (const NamedRun& named : runs) {
    if (!named.run->variant->quality) continue;
    std::vector<std::string> row(buckets.size() + 1, "-");
    row[0] = named.name;
    Series series{named.name};
    for (const auto& bucket : named.run->variant->quality->by_position) {
      const auto column = std::distance(buckets.begin(), buckets.find(bucket.from));
      row[static_cast<std::size_t>(column) + 1] = number(bucket.kld_mean);
      if (bucket.kld_mean) series.points.emplace_back(static_cast<double>(bucket.from), *bucket.kld_mean);
    }
    chart.table.rows.push_back(std::move(row));
    if (!series.points.empty() && chart.series.size() < kMostSeries) chart.series.push_back(std::move(series));
  }
  if (chart.series.empty()) return {};
  chart.note = too_many(chart.table.rows.size());
  return {chart};
}

std::vector<Chart> scale_charts(const std::vector<NamedRun>& runs) {
  std::vector<HeatRow> scales, saturated;
  for (const NamedRun& named : runs) {
    if (scales.size() >= 4 * kMostSeries) break;
    add_heat_row(
        named, "K", [](const auto& l) { return log2_scale(l.k_scale); }, scales);
    add_heat_row(
        named, "V", [](const auto& l) { return log2_scale(l.v_scale); }, scales);
    add_heat_row(
        named, "K", [](const auto& l) { return l.k_saturated; }, saturated);
    add_heat_row(
        named, "V", [](const auto& l) { return l.v_saturated; }, saturated);
  }
  std::vector<Chart> charts;
  if (auto chart = heat_chart("scales", "Scale of each layer (log2)",
                              "0 is a scale of 1; per-head scales by their geometric mean.", scales)) {
    charts.push_back(std::move(*chart));
  }
  if (auto chart = heat_chart("saturated", "Share of values that saturate, by layer",
                              "Of what calibration saw, at the scale in use.", saturated)) {
    charts.push_back(std::move(*chart));
  }
  return charts;
}

Table environment_table(const std::vector<NamedRun>& runs) {
  Table table{"Environment", {""}, {}};
  const std::size_t count = std::min(runs.size(), kMostSeries);
  for (std::size_t i = 0; i < count; ++i) table.head.push_back(runs[i].name);
  const auto add = [&](const std::string& label, auto&& value) {
    std::vector<std::string> row{label};
    for (std::size_t i = 0; i < count; ++i) row.push_back(value(*runs[i].run->result));
    if (std::any_of(row.begin() + 1, row.end(), [](const std::string& text) { return !text.empty(); })) {
      table.rows.push_back(std::move(row));
    }
  };
  using R = report::Result;
  add("file", [&](const R& r) {
    for (const NamedRun& named : runs) {
      if (named.run->result.get() == &r) return named.run->file();
    }
    return std::string();
  });
  add("measured", [](const R& r) { return r.start_time; });
  add("model", [](const R& r) { return fmt::format("{} ({})", r.engine.model, r.engine.quantization); });
  add("device", [](const R& r) { return r.engine.device; });
  add("CPU", [](const R& r) { return r.environment.cpu_info; });
  add("cores", [](const R& r) { return fmt::format("{}", r.environment.cpu_cores); });
  add("GPU", [](const R& r) { return r.environment.devices.empty() ? "" : r.environment.devices.front().name; });
  add("GPUs",
      [](const R& r) { return r.environment.devices.empty() ? "" : fmt::format("{}", r.environment.devices.size()); });
  add("driver", [](const R& r) { return r.environment.driver_version; });
  add("CUDA", [](const R& r) { return r.environment.cuda_version; });
  add("NCCL", [](const R& r) { return r.environment.nccl_version; });
  add("build", [](const R& r) {
    return r.environment.build_commit.substr(0, 12) + (r.environment.git_is_dirty.value_or(false) ? " (dirty)" : "");
  });
  add("compiler", [](const R& r) { return r.environment.compiler + " " + r.environment.build_type; });
  add("system", [](const R& r) { return r.environment.os; });
  return table;
}

}  // namespace qwenbench::compare
