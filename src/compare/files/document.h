// What the text and the Markdown form of a comparison have in common, laid out by neither. Private to
// src/compare/files.
#pragma once

#include <string>
#include <vector>

#include "compare/files/comparison.h"
#include "compare/files/render.h"

namespace qwenbench::compare {

struct DocumentRow {
  std::string name;
  struct Cell {
    std::string value, change, verdict;  // "64.32 ± 2 %" | "+3.79 % (p=0.002 n=12)", "~ (p=0.39 n=12)" | "same"
  };
  std::vector<Cell> cells;  // by column
};

struct DocumentBlock {
  std::string title;  // "median_ttft_ms (ms)"
  std::vector<DocumentRow> rows;
};

struct DocumentList {
  std::string title;
  std::vector<std::string> items;
};

struct Document {
  std::vector<std::string> columns;  // "base (3 files)"
  std::vector<DocumentBlock> blocks;
  std::vector<DocumentList> lists;
  std::string outcome;   // "regression"
  std::string sentence;  // what led to it
};

Document document_of(const FileComparison& comparison, const RenderOptions& options);

/// "+3.79 %", "-0.30 pt", "+0.0012": of a change of `comparison`'s metric.
std::string change_text(const report::Comparison& comparison, double value);

}  // namespace qwenbench::compare
