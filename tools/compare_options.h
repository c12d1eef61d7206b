// The command line of `qwenbench compare`.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "compare/files/comparison.h"

namespace qwenbench::tools {

struct CompareArguments {
  std::vector<std::string> files;            // BASE NEW, or any with --col
  std::vector<std::string> base, candidate;  // --base, --new
  std::string row, col, against, filter;
  std::vector<std::string> metrics, thresholds;
  std::string format = "text", output, accept, noise_floor, html;
  bool noise = false, strict = false, force = false;
};

void add_compare_options(CLI::App& app, CompareArguments& arguments);

/// Files and variants of both sides, in order. Throws InputError where the command line names too few or too many.
std::vector<compare::Input> inputs_of(const CompareArguments& arguments);

/// Rows, columns, thresholds and metrics; reads the accept file. `today`: "2026-11-23".
compare::FileCompareOptions options_of(const CompareArguments& arguments, const std::string& today);

}  // namespace qwenbench::tools
