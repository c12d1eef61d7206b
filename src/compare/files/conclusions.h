// What follows from the tested lines: acknowledged regressions, missed slo, and what weakens the comparison. Private to
// src/compare/files.
#pragma once

#include <vector>

#include "compare/files/comparison.h"
#include "compare/files/grid.h"

namespace qwenbench::compare {

/// A cell against the base cell of its row.
struct Match {
  std::size_t row = 0, column = 0;
  const Cell* base = nullptr;
  const Cell* other = nullptr;
};

/// Fills entries[].accepted, failed_slo and notes of `result`.
void conclude(const Grid& grid, const std::vector<Match>& matches, const FileCompareOptions& options,
              FileComparison& result);

}  // namespace qwenbench::compare
