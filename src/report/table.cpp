#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "report/content.h"

namespace qwenbench::report {
namespace {

constexpr std::size_t kWidth = 100, kLabel = 34, kColumn = 22, kColumnsAtOnce = 3;

constexpr std::string_view kBold = "\x1b[1m", kRed = "\x1b[31m", kGreen = "\x1b[32m", kYellow = "\x1b[33m",
                           kReset = "\x1b[0m";

/// Columns on a terminal: code points, since all that is printed here is one column wide.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// Cut to `most` columns, the last one then being a dot.
std::string clip(std::string_view text, std::size_t most) {
  if (width(text) <= most) return std::string(text);
  std::size_t bytes = 0;
  for (std::size_t columns = 0; columns < most - 1; ++columns) {
    ++bytes;
    while (bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) ++bytes;
  }
  return std::string(text.substr(0, bytes)) + ".";
}

std::string left(std::string_view text, std::size_t columns) {
  std::string result = clip(text, columns);
  return result + std::string(columns - width(result), ' ');
}

std::string right(std::string_view text, std::size_t columns) {
  const std::string result = clip(text, columns);
  return std::string(columns - width(result), ' ') + result;
}

std::string bullet(const std::string& text) { return wrapped(fmt::format("- {}", one_line(text, 1000)), 2); }

class Painter {
 public:
  explicit Painter(bool on) : on_(on) {}
  std::string operator()(std::string_view color, const std::string& text) const {
    return on_ ? std::string(color) + text + std::string(kReset) : text;
  }

 private:
  bool on_;
};

std::string_view color_of(const std::string& verdict) {
  if (verdict == "regression" || verdict == "reject-fp8") return kRed;
  if (verdict == "inconclusive" || verdict == "none") return kYellow;
  return kGreen;
}

/// Up to three variants side by side.
std::string columns_text(const Content& content, std::size_t begin, const Painter& paint) {
  const std::size_t end = std::min(begin + kColumnsAtOnce, content.columns.size());
  std::string head(kLabel, ' ');
  for (std::size_t i = begin; i < end; ++i) head += right(one_line(content.columns[i]), kColumn);
  std::string text = paint(kBold, head) + "\n";
  for (const Row& row : content.rows) {
    text += left(one_line(row.label), kLabel);
    for (std::size_t i = begin; i < end; ++i) text += right(one_line(row.cells[i]), kColumn);
    text += "\n";
  }
  return text;
}

std::string changes_text(const Content& content, const Painter& paint) {
  if (content.changes.empty()) return "";
  const auto line = [](const std::string& metric, const std::string& change, const std::string& interval,
                       const std::string& p, const std::string& verdict) {
    return fmt::format("{}{}{}{}  {}", left(one_line(metric), kLabel), right(change, 12), right(interval, 26),
                       right(p, 10), verdict);
  };
  std::string text = fmt::format(
      "\n{}\n", paint(kBold, line(content.changes_title, "change", "95 % interval", "p (Holm)", "verdict")));
  for (const ChangeRow& row : content.changes) {
    const std::string verdict = row.verdict == "same" ? row.verdict : paint(color_of(row.verdict), row.verdict);
    text += line(row.metric, row.change, row.interval, row.p, verdict) + "\n";
  }
  return text;
}

std::string list_text(const std::string& title, const std::vector<std::string>& items, const Painter& paint) {
  if (items.empty()) return "";
  std::string text = fmt::format("\n{}\n", paint(kBold, title));
  for (const std::string& item : items) text += bullet(item);
  return text;
}

}  // namespace

std::string wrapped(const std::string& text, std::size_t indent) {
  std::string result, line;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (begin > 0 && width(line) + 1 + width(word) > kWidth) {
      result += line + "\n";
      line.assign(indent, ' ');
      line += word;
    } else {
      if (begin > 0) line += ' ';
      line += word;
    }
    begin = end + 1;
  }
  return result + line + "\n";
}

std::string render_table(const Result& result, const TableOptions& options) {
  const Content content = content_of(result);
  const Painter paint(options.color);
  std::string text;
  for (const std::string& line : content.header) text += wrapped(one_line(line), 2);
  for (std::size_t begin = 0; begin < content.columns.size(); begin += kColumnsAtOnce) {
    text += fmt::format("\n{}", columns_text(content, begin, paint));
  }
  text += changes_text(content, paint);
  text += list_text("Warnings", content.warnings, paint);
  text += list_text("SLO", content.slo, paint);
  text += fmt::format("\n{}{}\n", paint(kBold, "Verdict: "), paint(color_of(content.verdict), content.verdict));
  for (const std::string& reason : content.reasons) text += bullet(reason);
  return text;
}

}  // namespace qwenbench::report
