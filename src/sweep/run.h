// The cells of a sweep at work.
#pragma once

#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/progress.h"
#include "profile/grid.h"

namespace qwenbench::sweep {

/// Share i of n of the cells, i = 1..n: every n-th, so that neighbours on the axes spread evenly.
struct Shard {
  std::size_t index = 1, count = 1;

  bool holds(std::size_t cell) const { return cell % count == index - 1; }
};

struct SweepRunOptions {
  std::filesystem::path folder;
  Shard shard;
  bool resume = false;  // cells that have a result are left alone
  ProgressStyle progress = ProgressStyle::kLines;
  std::string cli_command;
  std::function<double(const profile::Profile&)> predict_seconds;  // for the time left; null: all cells alike
};

struct SweepRunOutcome {
  std::size_t finished = 0, failed = 0, kept = 0;  // cells; kept: had a result before
  bool cancelled = false;
};

/// Runs the cells that have no result, grouped by the weights they share; each group in a child process that loads them
/// once. Throws InputError where the folder holds another sweep, or results of these cells without `resume`.
SweepRunOutcome run_sweep(const profile::Sweep& sweep, const SweepRunOptions& options, std::ostream& err);

}  // namespace qwenbench::sweep
