#include <fmt/format.h>

#include "base/error.h"
#include "report/content.h"
#include "report/table.h"

namespace qwenbench::report {
namespace {

/// Text in a table cell or list: what Markdown would take for markup is escaped.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : one_line(text, 1000)) {
    if (c == '|' || c == '*' || c == '_' || c == '<' || c == '`' || c == '[') result += '\\';
    result += c;
  }
  return result;
}

std::string row_text(const std::vector<std::string>& cells) {
  std::string text = "|";
  for (const std::string& cell : cells) text += fmt::format(" {} |", escaped(cell));
  return text + "\n";
}

std::string rule(std::size_t columns) {
  std::string text = "|---|";
  for (std::size_t i = 1; i < columns; ++i) text += "---:|";
  return text + "\n";
}

std::string list(const std::string& title, const std::vector<std::string>& items) {
  if (items.empty()) return "";
  std::string text = fmt::format("\n**{}**\n\n", title);
  for (const std::string& item : items) text += fmt::format("- {}\n", escaped(item));
  return text;
}

}  // namespace

std::string render_markdown(const Result& result) {
  const Content content = content_of(result);
  std::string text;
  for (const std::string& line : content.header) text += escaped(line) + "  \n";
  std::vector<std::string> head{""};
  head.insert(head.end(), content.columns.begin(), content.columns.end());
  text += fmt::format("\n{}{}", row_text(head), rule(head.size()));
  for (const Row& row : content.rows) {
    std::vector<std::string> cells{row.label};
    cells.insert(cells.end(), row.cells.begin(), row.cells.end());
    text += row_text(cells);
  }
  if (!content.changes.empty()) {
    text += "\n";
    text += row_text({content.changes_title, "change", "95 % interval", "p (Holm)", "verdict"}) + rule(5);
    for (const ChangeRow& row : content.changes) {
      text += row_text({row.metric, row.change, row.interval, row.p, row.verdict});
    }
  }
  text += list("Warnings", content.warnings) + list("SLO", content.slo);
  text += list(fmt::format("Verdict: {}", escaped(content.verdict)), content.reasons);
  return fmt::format("{}\n{}\n", text, escaped(definitions()));
}

}  // namespace qwenbench::report
