// The document that an investigation ends with: the question, the set-up, the numbers, the verdict, what stays
// uncertain, and what would call for another look.
#pragma once

#include <string>

#include "report/result.h"

namespace qwenbench::report {

/// GitHub Markdown. `result_file`: where the raw samples are, as the reader should find them. Every sentence is either
/// a fact of `result` or follows from what it lacks.
std::string render_decision(const Result& result, const std::string& result_file);

}  // namespace qwenbench::report
