// Cells run in a child process: what crashes or eats all memory there costs one cell.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace qwenbench::sweep {

struct CellOutcome {
  int exit_code = -1;   // of a run; 5 where the child died; -1: not run (cancelled before)
  std::string message;  // one line where the run did not end well
  double seconds = 0;
};

struct WorkerOptions {
  /// Runs item `index` in the child; the next item of the same group finds what it left in memory. Its exit code, or
  /// an Error.
  std::function<int(std::size_t index)> run;
  std::function<void(std::size_t index)> on_start;                            // in the parent
  std::function<void(std::size_t index, const CellOutcome& outcome)> on_end;  // in the parent
  std::function<void()> on_tick;                                              // in the parent, about twice a second
};

/// Runs items 0..count-1 in order in one child; a new child goes on after an item in which the old one died, or failed
/// for want of memory. Ctrl-C is handed on to the child, and ends the group. The caller has no threads.
std::vector<CellOutcome> run_in_child(std::size_t count, const WorkerOptions& options);

}  // namespace qwenbench::sweep
