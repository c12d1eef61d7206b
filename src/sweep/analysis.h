// What the finished cells of a sweep say together. Pure: links no engine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "profile/grid.h"
#include "report/noise_file.h"
#include "sweep/folder.h"

namespace qwenbench::sweep {

/// One variant of one finished cell.
struct Candidate {
  std::size_t cell = 0;  // index into the sweep's cells
  const compare::Run* run = nullptr;
  std::optional<double> objective;
  std::vector<std::optional<double>> pareto;  // by sweep.pareto
  std::vector<std::string> violations;        // of constraints, slo and ceiling: sentences
  bool on_front = false;                      // nobody is at least as good in all Pareto metrics and better in one
  bool tied = false;                          // not to be told from the champion in the objective (Holm over all)
};

/// What going from the first value of an axis to another brings, over all pairs of cells that differ in nothing else.
struct Effect {
  std::string axis, from, to, metric;
  int pairs = 0;
  bool relative = false;                 // timing: ratio - 1; quality: a difference in the metric's unit
  double change = 0, low = 0, high = 0;  // mean over the pairs (and variants), 95 % interval
  double least = 0, most = 0;            // of the single pairs
};

struct Analysis {
  std::vector<Candidate> candidates;  // by cell, then variant
  std::optional<std::size_t> champion;
  std::vector<Effect> effects;
};

/// Throws InputError where objective, constraints or pareto name no metric, or a variant that no cell has.
Analysis analyse(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const report::NoiseFile* noise);

/// The checks that need no results; for before hours of work.
void check_names(const profile::Sweep& sweep);

/// The candidate's cell and variant, for people.
std::string candidate_name(const profile::Sweep& sweep, const Candidate& candidate);

/// Four digits; "-" where there is no finite value.
std::string number_text(std::optional<double> value);

}  // namespace qwenbench::sweep
