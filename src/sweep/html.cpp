#include "sweep/html.h"

#include <fmt/format.h>

#include <algorithm>

#include "compare/files/charts.h"
#include "report/metrics.h"

namespace qwenbench::sweep {
namespace {

using html::Chart;
using html::Series;

/// The first two Pareto metrics against each other; the front is a line.
Chart front_chart(const profile::Sweep& sweep, const Analysis& analysis) {
  Chart chart;
  chart.kind = Chart::Kind::kPoints;
  chart.id = "front";
  chart.title = "Throughput against latency, and the Pareto front";
  chart.note = fmt::format("The front is over {}; drawn are the first two.", fmt::join(sweep.pareto, ", "));
  const auto unit = [](const std::string& metric) {
    const std::string text = report::metric_info(metric).unit;
    return text.empty() ? metric : fmt::format("{} ({})", metric, text);
  };
  chart.x_label = unit(sweep.pareto[1]);
  chart.y_label = unit(sweep.pareto[0]);
  Series others{"dominated"}, front{"Pareto front"}, champion{"champion"};
  front.emphasized = true;
  champion.radius = 10;
  chart.table = {chart.title, {"cell, variant"}, {}};
  for (const std::string& metric : sweep.pareto) chart.table.head.push_back(unit(metric));
  chart.table.head.insert(chart.table.head.end(), {"front", "champion", "constraints"});
  std::vector<std::size_t> order(analysis.candidates.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return analysis.candidates[a].pareto[1].value_or(0) < analysis.candidates[b].pareto[1].value_or(0);
  });
  for (const std::size_t i : order) {
    const Candidate& candidate = analysis.candidates[i];
    const std::string name = candidate_name(sweep, candidate);
    std::vector<std::string> row{name};
    for (const auto& value : candidate.pareto) row.push_back(number_text(value));
    row.insert(row.end(), {candidate.on_front ? "yes" : "",
                           analysis.champion == i ? "champion"
                           : candidate.tied       ? "tied"
                                                  : "",
                           candidate.violations.empty() ? "hold" : candidate.violations.front()});
    chart.table.rows.push_back(std::move(row));
    if (!candidate.pareto[0] || !candidate.pareto[1]) continue;
    Series& series = candidate.on_front ? front : others;
    series.points.emplace_back(*candidate.pareto[1], *candidate.pareto[0]);
    series.labels.push_back(name);
    if (analysis.champion == i) {
      champion.points.push_back(series.points.back());
      champion.labels.push_back(name);
    }
  }
  chart.series = {std::move(others), std::move(front), std::move(champion)};
  return chart;
}

/// One chart a metric that is a ratio: what each axis changes.
std::vector<Chart> effect_charts(const profile::Sweep& sweep, const Analysis& analysis) {
  std::vector<Chart> charts;
  for (const Effect& effect : analysis.effects) {
    if (!effect.relative) continue;
    const std::string id = "effect-" + effect.metric;
    auto chart = std::find_if(charts.begin(), charts.end(), [&](const Chart& c) { return c.id == id; });
    if (chart == charts.end()) {
      Chart& added = charts.emplace_back();
      added.kind = Chart::Kind::kIntervals;
      added.id = id;
      added.title = fmt::format("What each axis does to {}", effect.metric);
      added.note = "Mean over the pairs of cells that differ in it alone, 95 % interval, percent.";
      added.x_label = "change (%)";
      added.table = {added.title, {"axis", "change (%)", "low", "high", "pairs"}, {}};
      chart = charts.end() - 1;
    }
    const std::string name = fmt::format("{}: {} -> {}", effect.axis, effect.from, effect.to);
    chart->categories.push_back(name);
    chart->intervals.emplace_back(100 * effect.low, 100 * effect.high);
    chart->centers.push_back(100 * effect.change);
    chart->table.rows.push_back({name, fmt::format("{:+.4g}", 100 * effect.change),
                                 fmt::format("{:+.4g}", 100 * effect.low), fmt::format("{:+.4g}", 100 * effect.high),
                                 fmt::format("{}", effect.pairs)});
  }
  // What the champion is best in comes first.
  std::stable_partition(charts.begin(), charts.end(),
                        [&](const Chart& chart) { return chart.id == "effect-" + sweep.objective.metric; });
  return charts;
}

std::vector<compare::NamedRun> runs_of_cell(const CellResult& cell) {
  std::vector<compare::NamedRun> runs;
  for (const compare::Run& run : cell.runs) runs.push_back({run.variant->name, &run});
  return runs;
}

html::Table failures_of(const profile::Sweep& sweep, const std::vector<CellResult>& cells) {
  html::Table table{"Cells without a result", {"cell", "why"}, {}};
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].done()) continue;
    table.rows.push_back(
        {describe_cell(sweep, sweep.cells[i]), cells[i].failure ? cells[i].failure->message : "not run yet"});
  }
  return table;
}

/// The cell that is looked at more closely: the champion's, else the first that is done.
const CellResult* close_up(const std::vector<CellResult>& cells, const Analysis& analysis) {
  if (analysis.champion) return &cells[analysis.candidates[*analysis.champion].cell];
  const auto done = std::find_if(cells.begin(), cells.end(), [](const CellResult& cell) { return cell.done(); });
  return done == cells.end() ? nullptr : &*done;
}

void add_close_up(const CellResult& cell, const std::string& name, html::Page& page) {
  const std::vector<compare::NamedRun> runs = runs_of_cell(cell);
  html::Section section{"A closer look: " + name, {}, {}, compare::latency_charts(runs)};
  for (auto charts : {compare::position_charts(runs), compare::scale_charts(runs)}) {
    for (Chart& chart : charts) section.charts.push_back(std::move(chart));
  }
  if (!section.charts.empty()) page.sections.push_back(std::move(section));
  page.sections.push_back({"Environment", {}, {compare::environment_table(runs)}, {}});
}

}  // namespace

std::string render_html(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis) {
  html::Page page;
  page.title = "Sweep " + sweep.name;
  const auto done = std::count_if(cells.begin(), cells.end(), [](const CellResult& cell) { return cell.done(); });
  page.subtitle = fmt::format("{} of {} cells have a result. ", done, cells.size());
  page.subtitle += analysis.champion ? fmt::format("Champion in {}: {}, {}.", sweep.objective.metric,
                                                   candidate_name(sweep, analysis.candidates[*analysis.champion]),
                                                   number_text(analysis.candidates[*analysis.champion].objective))
                                     : "No cell holds every constraint.";
  html::Section overview{"Champion and Pareto front", {}, {}, {}};
  if (!analysis.candidates.empty()) overview.charts.push_back(front_chart(sweep, analysis));
  if (html::Table failed = failures_of(sweep, cells); !failed.rows.empty())
    overview.tables.push_back(std::move(failed));
  page.sections.push_back(std::move(overview));
  if (auto effects = effect_charts(sweep, analysis); !effects.empty()) {
    page.sections.push_back({"What each axis brings", {}, {}, std::move(effects)});
  }
  if (const CellResult* cell = close_up(cells, analysis)) {
    const auto index = static_cast<std::size_t>(cell - cells.data());
    add_close_up(*cell, describe_cell(sweep, sweep.cells[index]), page);
  }
  return html::render(page);
}

}  // namespace qwenbench::sweep
