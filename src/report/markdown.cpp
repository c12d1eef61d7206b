#include <fmt/format.h>

#include "base/error.h"
#include "report/markdown_text.h"
#include "report/table.h"

namespace qwenbench::report {
namespace {

std::string list(const std::string& title, const std::vector<std::string>& items) {
  if (items.empty()) return "";
  return fmt::format("\n**{}**\n\n{}", title, markdown_bullets(items));
}

}  // namespace

std::string markdown_escaped(const std::string& text) {
  std::string result;
  for (const char c : one_line(text, 1000)) {
    if (c == '|' || c == '*' || c == '_' || c == '<' || c == '`' || c == '[') result += '\\';
    result += c;
  }
  return result;
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string text = "|";
  for (const std::string& cell : cells) text += fmt::format(" {} |", markdown_escaped(cell));
  return text + "\n";
}

std::string markdown_rule(std::size_t columns) {
  std::string text = "|---|";
  for (std::size_t i = 1; i < columns; ++i) text += "---:|";
  return text + "\n";
}

std::string markdown_bullets(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += fmt::format("- {}\n", markdown_escaped(item));
  return text;
}

std::string markdown_variants(const Content& content) {
  std::vector<std::string> head{""};
  head.insert(head.end(), content.columns.begin(), content.columns.end());
  std::string text = markdown_row(head) + markdown_rule(head.size());
  for (const Row& row : content.rows) {
    std::vector<std::string> cells{row.label};
    cells.insert(cells.end(), row.cells.begin(), row.cells.end());
    text += markdown_row(cells);
  }
  return text;
}

std::string markdown_changes(const Content& content) {
  if (content.changes.empty()) return "";
  std::string text =
      markdown_row({content.changes_title, "change", "95 % interval", "p (Holm)", "verdict"}) + markdown_rule(5);
  for (const ChangeRow& row : content.changes) {
    text += markdown_row({row.metric, row.change, row.interval, row.p, row.verdict});
  }
  return text;
}

std::string render_markdown(const Result& result) {
  const Content content = content_of(result);
  std::string text;
  for (const std::string& line : content.header) text += markdown_escaped(line) + "  \n";
  text += "\n" + markdown_variants(content);
  if (!content.changes.empty()) text += "\n" + markdown_changes(content);
  text += list("Warnings", content.warnings) + list("SLO", content.slo);
  text += list(fmt::format("Verdict: {}", markdown_escaped(content.verdict)), content.reasons);
  return fmt::format("{}\n{}\n", text, markdown_escaped(definitions()));
}

}  // namespace qwenbench::report
