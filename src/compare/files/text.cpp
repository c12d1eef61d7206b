#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "compare/files/document.h"

namespace qwenbench::compare {
namespace {

constexpr std::string_view kBold = "\x1b[1m", kRed = "\x1b[31m", kGreen = "\x1b[32m", kYellow = "\x1b[33m",
                           kReset = "\x1b[0m";

/// Columns on a terminal: code points, since all that is printed here is one column wide.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string left(const std::string& text, std::size_t columns) {
  return text + std::string(columns - std::min(columns, width(text)), ' ');
}

std::string right(const std::string& text, std::size_t columns) {
  return std::string(columns - std::min(columns, width(text)), ' ') + text;
}

std::string paint(bool on, std::string_view color, const std::string& text) {
  return on && !color.empty() && !text.empty() ? std::string(color) + text + std::string(kReset) : text;
}

std::string_view color_of(const std::string& verdict) {
  if (verdict == "regression" || verdict == "not comparable" || verdict == "missed slo") return kRed;
  if (verdict == "improvement" || verdict == "no regression") return kGreen;
  if (verdict == "inconclusive" || verdict == "undecidable") return kYellow;
  return "";
}

/// Width of every column over the whole document, so that the blocks stand under each other.
struct Widths {
  std::size_t name = 8;
  std::vector<std::size_t> value, change, verdict;
};

Widths widths_of(const Document& document) {
  Widths widths;
  const std::size_t columns = document.columns.size();
  widths.value.assign(columns, 6);
  widths.change.assign(columns, 0);
  widths.verdict.assign(columns, 0);
  for (const DocumentBlock& block : document.blocks) {
    widths.name = std::max(widths.name, width(block.title));
    for (const DocumentRow& row : block.rows) {
      widths.name = std::max(widths.name, width(row.name));
      for (std::size_t i = 0; i < columns; ++i) {
        widths.value[i] = std::max(widths.value[i], width(row.cells[i].value));
        widths.change[i] = std::max(widths.change[i], width(row.cells[i].change));
        widths.verdict[i] = std::max(widths.verdict[i], width(row.cells[i].verdict));
      }
    }
  }
  for (std::size_t i = 0; i < columns; ++i) {
    const std::size_t room = i == 0 ? widths.value[i] : widths.value[i] + widths.change[i] + widths.verdict[i] + 3;
    if (width(document.columns[i]) > room) widths.value[i] += width(document.columns[i]) - room;
  }
  return widths;
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string row_text(const DocumentRow& row, const Widths& widths, bool color) {
  std::string line = left(row.name, widths.name);
  for (std::size_t i = 0; i < row.cells.size(); ++i) {
    line += "  " + right(row.cells[i].value, widths.value[i]);
    if (i == 0) continue;
    line += "  " + right(row.cells[i].change, widths.change[i]) + " ";
    const std::string verdict = left(row.cells[i].verdict, widths.verdict[i]);
    line += paint(color, color_of(row.cells[i].verdict), i + 1 == row.cells.size() ? row.cells[i].verdict : verdict);
  }
  return trimmed(line);
}

std::string head_text(const std::string& title, const Document& document, const Widths& widths) {
  std::string line = left(title, widths.name);
  for (std::size_t i = 0; i < document.columns.size(); ++i) {
    const std::size_t room = i == 0 ? widths.value[i] : widths.value[i] + widths.change[i] + widths.verdict[i] + 3;
    line += "  " + (i == 0 ? right(document.columns[i], room)
                           : right(document.columns[i], widths.value[i]) + std::string(room - widths.value[i], ' '));
  }
  return trimmed(line);
}

}  // namespace

std::string render_text(const FileComparison& comparison, const RenderOptions& options) {
  const Document document = document_of(comparison, options);
  const Widths widths = widths_of(document);
  std::string text;
  for (const DocumentBlock& block : document.blocks) {
    if (!text.empty()) text += "\n";
    text += paint(options.color, kBold, head_text(block.title, document, widths));
    for (const DocumentRow& row : block.rows) text += row_text(row, widths, options.color);
  }
  for (const DocumentList& list : document.lists) {
    text += fmt::format("\n{}\n", paint(options.color, kBold, list.title));
    for (const std::string& item : list.items) text += fmt::format("- {}\n", one_line(item, 400));
  }
  return text + fmt::format("\n{}: {}\n", paint(options.color, color_of(document.outcome), document.outcome),
                            document.sentence);
}

}  // namespace qwenbench::compare
