// What a sweep found, for people and programs.
#pragma once

#include <string>

#include "sweep/analysis.h"

namespace qwenbench::sweep {

/// One line a cell and variant: axes, status, metrics, constraints, Pareto front, champion. RFC 4180.
std::string summary_csv(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis);

/// Table, champion, front, sensitivity.
std::string summary_text(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis);

/// The same as JSON (docs/sweep.md).
std::string summary_json(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis);

}  // namespace qwenbench::sweep
