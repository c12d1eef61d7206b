// Pieces of GitHub Markdown. Private to src/report.
#pragma once

#include <string>
#include <vector>

#include "report/content.h"

namespace qwenbench::report {

/// Text in a table cell or list: what Markdown would take for markup is escaped.
std::string markdown_escaped(const std::string& text);

std::string markdown_row(const std::vector<std::string>& cells);
/// Under a head of so many columns; all but the first are aligned right.
std::string markdown_rule(std::size_t columns);
std::string markdown_bullets(const std::vector<std::string>& items);

/// One column a variant.
std::string markdown_variants(const Content& content);
/// "" where nothing was compared.
std::string markdown_changes(const Content& content);

}  // namespace qwenbench::report
