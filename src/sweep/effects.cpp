#include "sweep/effects.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compare/files/file_tests.h"
#include "compare/tested.h"
#include "stats/student.h"

namespace qwenbench::sweep {
namespace {

using compare::Run;
using compare::Tested;

/// A change with its standard error, on the scale where errors are symmetric (ln for ratios).
struct Estimate {
  double value = 0, std_error = 0, degrees_of_freedom = 0;
  bool relative = false;
};

const Run* run_of(const CellResult& cell, const std::string& variant) {
  for (const Run& run : cell.runs) {
    if (run.variant->name == variant) return &run;
  }
  return nullptr;
}

/// One metric between two cells, the mean over their variants.
using PairEstimates = std::map<std::string, Estimate>;

std::vector<std::string> metrics_of(const profile::Sweep& sweep) {
  std::vector<std::string> metrics = compare::TestOptions{}.timing_metrics;
  for (const std::string& metric : {sweep.objective.metric}) metrics.push_back(metric);
  metrics.insert(metrics.end(), sweep.pareto.begin(), sweep.pareto.end());
  std::sort(metrics.begin(), metrics.end());
  metrics.erase(std::unique(metrics.begin(), metrics.end()), metrics.end());
  return metrics;
}

PairEstimates compare_pair(const CellResult& from, const CellResult& to, const std::vector<std::string>& metrics,
                           const report::NoiseFile* noise) {
  std::map<std::string, std::vector<Estimate>> of_variants;
  for (const Run& run : from.runs) {
    const Run* partner = run_of(to, run.variant->name);
    if (partner == nullptr) continue;
    compare::TestOptions options;
    options.bootstrap_resamples = 1000;
    options.timing_metrics = metrics;
    std::erase_if(options.timing_metrics, [](const std::string& m) { return m == "ppl" || m == "ln_ppl_ratio"; });
    for (const Tested& tested : compare::test_cells({&run}, {partner}, options, noise)) {
      const report::Comparison& c = tested.comparison;
      if (!c.change || !std::isfinite(tested.std_error)) continue;
      if (std::find(metrics.begin(), metrics.end(), c.metric) == metrics.end()) continue;
      const bool first = c.test.starts_with("t on");  // a quality metric stands before the same name as a timing
      if (!first && c.relative) continue;
      of_variants[c.metric].push_back(
          {tested.estimate, tested.std_error, std::max(1.0, static_cast<double>(c.n - 1)), c.relative});
    }
  }
  PairEstimates pair;
  for (const auto& [metric, estimates] : of_variants) {
    Estimate mean{0, 0, estimates.front().degrees_of_freedom, estimates.front().relative};
    std::size_t used = 0;
    for (const Estimate& estimate : estimates) {
      if (estimate.relative != mean.relative) continue;
      mean.value += estimate.value;
      mean.std_error += estimate.std_error;  // fully dependent: errors add as they are
      ++used;
    }
    mean.value /= static_cast<double>(used);
    mean.std_error /= static_cast<double>(used);
    pair[metric] = mean;
  }
  return pair;
}

/// Pairs of cells that differ on `axis` alone: from its first value to `value`.
std::vector<std::pair<std::size_t, std::size_t>> pairs_on(const profile::Sweep& sweep, std::size_t axis,
                                                          std::size_t value) {
  std::map<std::vector<std::size_t>, std::size_t> by_choice;
  for (std::size_t i = 0; i < sweep.cells.size(); ++i) by_choice[sweep.cells[i].choice] = i;
  std::vector<std::pair<std::size_t, std::size_t>> pairs;
  for (const auto& [choice, index] : by_choice) {
    if (choice[axis] != value) continue;
    std::vector<std::size_t> first = choice;
    first[axis] = 0;
    if (const auto found = by_choice.find(first); found != by_choice.end()) pairs.emplace_back(found->second, index);
  }
  return pairs;
}

Effect combine(const std::vector<Estimate>& pairs) {
  Effect effect;
  effect.pairs = static_cast<int>(pairs.size());
  effect.relative = pairs.front().relative;
  double sum = 0, squares = 0, freedom = 0, least = pairs.front().value, most = least;
  for (const Estimate& pair : pairs) {
    sum += pair.value;
    squares += pair.std_error * pair.std_error;
    freedom += pair.degrees_of_freedom;
    least = std::min(least, pair.value);
    most = std::max(most, pair.value);
  }
  const double n = static_cast<double>(pairs.size()), mean = sum / n;
  const double half = stats::student_quantile(0.975, freedom) * std::sqrt(squares) / n;
  const auto scale = [&](double value) { return effect.relative ? std::expm1(value) : value; };
  effect.change = scale(mean);
  effect.low = scale(mean - half);
  effect.high = scale(mean + half);
  effect.least = scale(least);
  effect.most = scale(most);
  return effect;
}

}  // namespace

std::vector<Effect> find_effects(const profile::Sweep& sweep, const std::vector<CellResult>& cells,
                                 const report::NoiseFile* noise) {
  const std::vector<std::string> metrics = metrics_of(sweep);
  std::vector<Effect> effects;
  for (std::size_t axis = 0; axis < sweep.axes.size(); ++axis) {
    for (std::size_t value = 1; value < sweep.axes[axis].values.size(); ++value) {
      std::map<std::string, std::vector<Estimate>> by_metric;
      for (const auto& [from, to] : pairs_on(sweep, axis, value)) {
        if (!cells[from].done() || !cells[to].done()) continue;
        for (const auto& [metric, estimate] : compare_pair(cells[from], cells[to], metrics, noise)) {
          by_metric[metric].push_back(estimate);
        }
      }
      for (const auto& [metric, pairs] : by_metric) {
        Effect effect = combine(pairs);
        effect.axis = sweep.axes[axis].name;
        effect.from = sweep.axes[axis].values[0].label;
        effect.to = sweep.axes[axis].values[value].label;
        effect.metric = metric;
        effects.push_back(std::move(effect));
      }
    }
  }
  return effects;
}

}  // namespace qwenbench::sweep
