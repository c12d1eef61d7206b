#include <fmt/format.h>

#include "base/error.h"
#include "compare/files/document.h"

namespace qwenbench::compare {
namespace {

/// Text in a table cell or list: what Markdown would take for markup is escaped.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : one_line(text, 1000)) {
    if (c == '|' || c == '*' || c == '_' || c == '<' || c == '`' || c == '[' || c == '~') result += '\\';
    result += c;
  }
  return result;
}

std::string head(const Document& document, const std::string& title) {
  std::string names = fmt::format("| {} |", escaped(title)), rule = "|---|";
  for (std::size_t i = 0; i < document.columns.size(); ++i) {
    names += fmt::format(" {} |", escaped(document.columns[i]));
    rule += "---:|";
    if (i > 0) names += " change | verdict |", rule += "---:|---|";
  }
  return names + "\n" + rule + "\n";
}

std::string row_text(const DocumentRow& row) {
  std::string text = fmt::format("| {} |", escaped(row.name));
  for (std::size_t i = 0; i < row.cells.size(); ++i) {
    const DocumentRow::Cell& cell = row.cells[i];
    text += fmt::format(" {} |", escaped(cell.value));
    if (i == 0) continue;
    const bool bad = cell.verdict == "regression";
    text +=
        fmt::format(" {} | {}{}{} |", escaped(cell.change), bad ? "**" : "", escaped(cell.verdict), bad ? "**" : "");
  }
  return text + "\n";
}

}  // namespace

std::string render_markdown(const FileComparison& comparison, const RenderOptions& options) {
  const Document document = document_of(comparison, options);
  std::string text = fmt::format("**{}**: {}\n", escaped(document.outcome), escaped(document.sentence));
  for (const DocumentBlock& block : document.blocks) {
    text += "\n" + head(document, block.title);
    for (const DocumentRow& row : block.rows) text += row_text(row);
  }
  for (const DocumentList& list : document.lists) {
    text += fmt::format("\n**{}**\n\n", list.title);
    for (const std::string& item : list.items) text += fmt::format("- {}\n", escaped(item));
  }
  return text;
}

}  // namespace qwenbench::compare
