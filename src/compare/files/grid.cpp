#include "compare/files/grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "compare/files/filter.h"

namespace qwenbench::compare {
namespace {

std::size_t index_of(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  names.push_back(name);
  return names.size() - 1;
}

/// "8, true" for two keys; the values alone, the header says the keys.
std::string row_name(const Run& run, const std::vector<std::string>& keys) {
  std::string name;
  for (const std::string& key : keys) name += (name.empty() ? "" : ", ") + key_of(run, key);
  return name;
}

/// What a filter asks of a run; a metric is asked for later.
bool passes(const Filter& filter, const Run& run, const std::vector<std::string>& metrics) {
  return std::any_of(metrics.begin(), metrics.end(), [&](const std::string& metric) {
    return filter([&](const std::string& key) { return key == "metric" ? metric : key_of(run, key); });
  });
}

std::vector<std::string> metrics_of(const Run& run, const FileCompareOptions& options) {
  std::vector<std::string> metrics =
      options.timing_metrics.empty() ? TestOptions{}.timing_metrics : options.timing_metrics;
  metrics.insert(metrics.end(), {"kld_mean", "ln_ppl_ratio", "same_top1", "ppl", "failed"});
  if (run.variant->quality) {
    for (const report::TaskSummary& task : run.variant->quality->tasks) metrics.push_back("accuracy:" + task.name);
  }
  return metrics;
}

}  // namespace

Grid make_grid(const std::vector<Run>& runs, const FileCompareOptions& options) {
  const Filter filter(options.filter);
  Grid grid;
  if (!options.base_column.empty()) grid.columns.push_back(options.base_column);
  std::vector<std::pair<std::size_t, std::size_t>> places;
  std::vector<const Run*> taken;
  for (const Run& run : runs) {
    if (!passes(filter, run, metrics_of(run, options))) continue;
    taken.push_back(&run);
    const std::size_t row = index_of(grid.rows, row_name(run, options.row_keys));
    places.emplace_back(row, index_of(grid.columns, key_of(run, options.column_key)));
  }
  if (taken.empty()) throw InputError("--filter leaves no run: nothing to compare");
  for (std::size_t i = 0; i < taken.size(); ++i) grid.cells[places[i]].push_back(taken[i]);
  const bool base_exists =
      std::any_of(places.begin(), places.end(), [](const auto& place) { return place.second == 0; });
  if (!base_exists) {
    throw InputError(fmt::format("no run has {} \"{}\", which the others were to be compared with", options.column_key,
                                 one_line(options.base_column, 60)));
  }
  if (grid.columns.size() < 2) {
    throw InputError(fmt::format("every run has {} \"{}\": nothing to compare it with", options.column_key,
                                 one_line(grid.columns.front(), 60)));
  }
  return grid;
}

}  // namespace qwenbench::compare
