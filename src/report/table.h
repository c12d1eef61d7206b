// What a person reads: one column per variant, then warnings, slo and verdict.
#pragma once

#include <string>

#include "report/result.h"

namespace qwenbench::report {

struct TableOptions {
  bool color = false;  // ANSI colours; the caller honours NO_COLOR
};

/// Plain text, at most 100 columns up to three variants of names up to 16 letters. Ends with a line break.
std::string render_table(const Result& result, const TableOptions& options = {});

/// One paragraph of at most 100 columns, broken between words; `indent` from the second line on. Ends with a line
/// break.
std::string wrapped(const std::string& text, std::size_t indent);

/// The same content as GitHub Markdown.
std::string render_markdown(const Result& result);

}  // namespace qwenbench::report
