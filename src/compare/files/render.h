// A comparison for people and programs. All texts end with a line break.
#pragma once

#include <string>
#include <vector>

#include "compare/files/comparison.h"

namespace qwenbench::compare {

struct RenderOptions {
  bool color = false;                  // text: ANSI colours
  bool strict = false, force = false;  // as the exit code takes them
};

/// benchstat's manner: a block a metric, a line a row, a column a side; then differences, slo, notes and the outcome.
std::string render_text(const FileComparison& comparison, const RenderOptions& options);
/// The same as GitHub Markdown.
std::string render_markdown(const FileComparison& comparison, const RenderOptions& options);
/// One line a row, metric and column; numbers in full precision. RFC 4180.
std::string render_csv(const FileComparison& comparison);
/// docs/compare.md describes it.
std::string render_json(const FileComparison& comparison, const RenderOptions& options);

/// "regression" | "inconclusive" | "not comparable" | "ok", of the exit code.
std::string outcome_of(const FileComparison& comparison, const RenderOptions& options);

}  // namespace qwenbench::compare
