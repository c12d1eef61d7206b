// Runs put into rows and columns by their keys. Private to src/compare/files.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "compare/files/comparison.h"
#include "compare/files/file_tests.h"

namespace qwenbench::compare {

struct Grid {
  std::vector<std::string> rows, columns;  // names, the base column first, else in order of appearance
  std::map<std::pair<std::size_t, std::size_t>, Cell> cells;

  const Cell* cell(std::size_t row, std::size_t column) const {
    const auto found = cells.find({row, column});
    return found == cells.end() ? nullptr : &found->second;
  }
};

/// Throws InputError for an unknown key, one column only, or a base column that is none.
Grid make_grid(const std::vector<Run>& runs, const FileCompareOptions& options);

}  // namespace qwenbench::compare
