#include "sweep/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compare/ceiling.h"
#include "compare/files/file_tests.h"
#include "compare/pair.h"
#include "report/metrics.h"
#include "stats/decision.h"
#include "sweep/effects.h"

namespace qwenbench::sweep {
namespace {

using compare::Run;
using report::VariantResult;

std::vector<report::SloLimit> limits_of(const profile::Sweep& sweep, const profile::Profile& profile) {
  std::vector<report::SloLimit> limits;
  for (const auto* list : {&profile.slo, &sweep.constraints}) {
    for (const profile::Slo& slo : *list) limits.push_back({slo.metric, slo.stat, slo.max, slo.min});
  }
  return limits;
}

std::string sentence(const report::SloResult& slo) {
  std::string text = slo.limit.stat.empty() ? slo.limit.metric : fmt::format("{} {}", slo.limit.stat, slo.limit.metric);
  if (!slo.observed) return text + " was not measured";
  if (slo.limit.max && *slo.observed > *slo.limit.max) {
    return fmt::format("{} is {:.4g}, above {:g}", text, *slo.observed, *slo.limit.max);
  }
  return fmt::format("{} is {:.4g}, below {:g}", text, *slo.observed, slo.limit.min.value_or(0));
}

void check_quality(const Run& run, const profile::Profile& profile, std::vector<std::string>& violations) {
  if (!run.variant->quality) return;  // not asked for: nothing was promised
  const std::string& reference = run.result->variants.front().name;
  std::vector<report::Comparison> against_reference;
  std::copy_if(run.result->comparisons.begin(), run.result->comparisons.end(), std::back_inserter(against_reference),
               [&](const auto& c) { return c.baseline == reference && c.candidate == run.variant->name; });
  if (run.variant->name == reference) return;
  for (const auto& check : compare::check_ceilings(*run.variant, against_reference, profile.quality.ceiling, {})) {
    if (check.within()) continue;
    violations.push_back(check.estimate ? fmt::format("{} {} the ceiling of {:g}: {:.3g} (up to {:.3g})", check.metric,
                                                      check.exceeded() ? "exceeds" : "may exceed", check.ceiling,
                                                      *check.estimate, *check.high)
                                        : check.metric + " could not be measured against its ceiling");
  }
}

Candidate candidate_of(const profile::Sweep& sweep, std::size_t cell, const Run& run) {
  Candidate candidate;
  candidate.cell = cell;
  candidate.run = &run;
  candidate.objective = report::metric_value(*run.variant, sweep.objective.metric);
  for (const std::string& metric : sweep.pareto) {
    candidate.pareto.push_back(report::metric_value(*run.variant, metric));
  }
  const profile::Profile& profile = sweep.cells[cell].profile;
  for (const report::SloResult& slo : report::check_slo({*run.variant}, limits_of(sweep, profile))) {
    if (!slo.pass) candidate.violations.push_back(sentence(slo));
  }
  check_quality(run, profile, candidate.violations);
  return candidate;
}

bool better(const std::string& metric, double a, double b) {
  return report::metric_info(metric).lower_is_better ? a < b : a > b;
}

/// `a` is at least as good everywhere and better somewhere. What was not measured for both counts for neither.
bool dominates(const Candidate& a, const Candidate& b, const std::vector<std::string>& metrics) {
  bool somewhere = false;
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    if (!a.pareto[i] || !b.pareto[i]) continue;
    if (better(metrics[i], *b.pareto[i], *a.pareto[i])) return false;
    somewhere |= better(metrics[i], *a.pareto[i], *b.pareto[i]);
  }
  return somewhere;
}

void find_front(const profile::Sweep& sweep, Analysis& analysis) {
  for (Candidate& candidate : analysis.candidates) {
    const bool measured = std::all_of(candidate.pareto.begin(), candidate.pareto.end(), [](auto& v) { return !v; });
    candidate.on_front =
        !measured && std::none_of(analysis.candidates.begin(), analysis.candidates.end(),
                                  [&](const Candidate& other) { return dominates(other, candidate, sweep.pareto); });
  }
}

bool eligible(const profile::Sweep& sweep, const Candidate& candidate) {
  return candidate.objective && candidate.violations.empty() &&
         (sweep.objective.variant.empty() || candidate.run->variant->name == sweep.objective.variant);
}

void find_champion(const profile::Sweep& sweep, Analysis& analysis) {
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    const Candidate& candidate = analysis.candidates[i];
    if (!eligible(sweep, candidate)) continue;
    const bool best = !analysis.champion || better(sweep.objective.metric, *candidate.objective,
                                                   *analysis.candidates[*analysis.champion].objective);
    if (best) analysis.champion = i;
  }
}

/// Candidates that the measurements cannot tell from the champion.
void find_tied(const profile::Sweep& sweep, const report::NoiseFile* noise, Analysis& analysis) {
  if (!analysis.champion) return;
  const Run* champion = analysis.candidates[*analysis.champion].run;
  std::vector<std::size_t> tested;
  std::vector<double> p_values;
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    if (i == *analysis.champion || !eligible(sweep, analysis.candidates[i])) continue;
    const auto test =
        compare::test_timing_of_cells({champion}, {analysis.candidates[i].run}, sweep.objective.metric, {}, noise);
    if (!test || !test->comparison.p_value) continue;
    tested.push_back(i);
    p_values.push_back(*test->comparison.p_value);
  }
  const std::vector<double> adjusted = stats::holm(p_values);
  for (std::size_t i = 0; i < tested.size(); ++i) analysis.candidates[tested[i]].tied = adjusted[i] >= 0.05;
}

}  // namespace

void check_names(const profile::Sweep& sweep) {
  report::metric_info(sweep.objective.metric);
  for (const std::string& metric : sweep.pareto) report::metric_info(metric);
  for (const profile::Cell& cell : sweep.cells) {
    for (const report::SloLimit& limit : limits_of(sweep, cell.profile)) {
      report::metric_value(VariantResult{}, limit.metric, limit.stat);
    }
    compare::check_ceiling_names(cell.profile.quality.ceiling);
    compare::check_minimum_effects(cell.profile.quality.minimum_effect);
    const auto& variants = cell.profile.variants;
    const std::string& wanted = sweep.objective.variant;
    if (wanted.empty()) continue;
    if (std::none_of(variants.begin(), variants.end(), [&](const auto& v) { return v.name == wanted; })) {
      throw InputError(fmt::format("objective.variant {}: cell {} has no such variant", one_line(wanted, 60), cell.id));
    }
  }
}

Analysis analyse(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const report::NoiseFile* noise) {
  check_names(sweep);
  Analysis analysis;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    for (const Run& run : cells[i].runs) analysis.candidates.push_back(candidate_of(sweep, i, run));
  }
  find_front(sweep, analysis);
  find_champion(sweep, analysis);
  find_tied(sweep, noise, analysis);
  analysis.effects = find_effects(sweep, cells, noise);
  return analysis;
}

std::string candidate_name(const profile::Sweep& sweep, const Candidate& candidate) {
  return fmt::format("{}, {}", describe_cell(sweep, sweep.cells[candidate.cell]), candidate.run->variant->name);
}

std::string number_text(std::optional<double> value) {
  return value && std::isfinite(*value) ? fmt::format("{:.4g}", *value) : "-";
}

}  // namespace qwenbench::sweep
