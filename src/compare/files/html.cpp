#include "compare/files/html.h"

#include <fmt/format.h>

#include "compare/files/charts.h"
#include "compare/files/document.h"

namespace qwenbench::compare {
namespace {

html::Table table_of(const Document& document, const DocumentBlock& block) {
  html::Table table{block.title, {""}, {}};
  for (std::size_t i = 0; i < document.columns.size(); ++i) {
    table.head.push_back(document.columns[i]);
    if (i > 0) table.head.insert(table.head.end(), {"change", "verdict"});
  }
  for (const DocumentRow& row : block.rows) {
    std::vector<std::string> cells{row.name};
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      cells.push_back(row.cells[i].value);
      if (i > 0) cells.insert(cells.end(), {row.cells[i].change, row.cells[i].verdict});
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

/// Every ratio with its interval, in percent.
std::vector<html::Chart> change_charts(const FileComparison& comparison) {
  html::Chart chart;
  chart.kind = html::Chart::Kind::kIntervals;
  chart.id = "changes";
  chart.title = "Changes with their 95 % intervals";
  chart.note = "Against the base, in percent; the mark within a bar is the estimate.";
  chart.x_label = "change (%)";
  chart.table = {chart.title, {"metric", "change (%)", "low", "high", "verdict"}, {}};
  for (const Line& line : comparison.lines) {
    for (std::size_t i = 1; i < line.entries.size(); ++i) {
      const auto& change = line.entries[i].change;
      if (!change || !change->relative || !change->change || !change->ci_low || line.entries[i].identical) continue;
      if (chart.categories.size() == 40) break;
      std::string name = fmt::format("{}, {}", line.metric, line.row.empty() ? "all" : line.row);
      if (line.entries.size() > 2) name += ", " + comparison.columns[i];
      chart.intervals.emplace_back(100 * *change->ci_low, 100 * *change->ci_high);
      chart.centers.push_back(100 * *change->change);
      chart.table.rows.push_back({name, fmt::format("{:+.4g}", chart.centers.back()),
                                  fmt::format("{:+.4g}", chart.intervals.back().first),
                                  fmt::format("{:+.4g}", chart.intervals.back().second), change->verdict});
      chart.categories.push_back(std::move(name));
    }
  }
  if (chart.categories.empty()) return {};
  return {chart};
}

std::vector<NamedRun> named(const FileComparison& comparison, const std::vector<Run>& runs) {
  std::vector<NamedRun> result;
  for (const Run& run : runs) {
    const auto column = run.keys.find(comparison.column_key);
    std::string name = column == run.keys.end() ? "" : column->second;
    for (const std::string& key : comparison.row_keys) {
      if (const auto row = run.keys.find(key); row != run.keys.end()) name += ", " + row->second;
    }
    result.push_back({name, &run});
  }
  return result;
}

}  // namespace

std::string render_html(const FileComparison& comparison, const std::vector<Run>& runs, const RenderOptions& options) {
  const Document document = document_of(comparison, options);
  const std::vector<NamedRun> shown = named(comparison, runs);
  html::Page page;
  page.title = "Comparison: " + document.outcome;
  page.subtitle = document.sentence;
  html::Section outcome{"Metrics", {}, {}, change_charts(comparison)};
  for (const DocumentBlock& block : document.blocks) outcome.tables.push_back(table_of(document, block));
  page.sections.push_back(std::move(outcome));
  for (const DocumentList& list : document.lists) page.sections.push_back({list.title, list.items, {}, {}});
  html::Section timing{"Timing", {}, {}, latency_charts(shown)};
  timing.charts.push_back(throughput_chart(shown));
  page.sections.push_back(std::move(timing));
  html::Section quality{"Quality and scales", {}, {}, position_charts(shown)};
  for (html::Chart& chart : scale_charts(shown)) quality.charts.push_back(std::move(chart));
  if (!quality.charts.empty()) page.sections.push_back(std::move(quality));
  page.sections.push_back({"Environment", {}, {environment_table(shown)}, {}});
  return html::render(page);
}

}  // namespace qwenbench::compare
