#include "compare/files/document.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qwenbench::compare {
namespace {

using report::Comparison;

bool is_share(const std::string& metric) {
  return metric.starts_with("accuracy") || metric == "same_top1" || metric == "failed" || metric.ends_with("_share") ||
         metric == "kv_cache_hit_rate";
}

/// A unit in which the numbers of one metric are easy to read.
struct Scale {
  double factor = 1;
  std::string unit;
};

Scale scale_of(const std::string& metric, const std::string& unit, double largest) {
  if (is_share(metric)) return {100, "%"};
  if (unit == "ms" && largest >= 10000) return {1e-3, "s"};
  if (unit == "ms" && largest < 0.1) return {1e3, "us"};
  if (unit.ends_with("/s") && largest >= 1e6) return {1e-6, "M" + unit};
  if (unit.ends_with("/s") && largest >= 1e5) return {1e-3, "k" + unit};
  return {1, unit};
}

/// Four significant digits.
std::string number(double value) {
  const double size = std::abs(value);
  if (size != 0 && (size < 0.001 || size >= 1e7)) return fmt::format("{:.3e}", value);
  const int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : size >= 0.1 ? 4 : 5;
  return fmt::format("{:.{}f}", value, decimals);
}

/// "64.32 ± 2 %": half the interval's width against the value; "± ∞" where so few samples have none.
std::string center_text(const Center& center, const Scale& scale, const std::string& metric) {
  std::string text = number(center.value * scale.factor);
  if (metric.starts_with("accuracy") || metric == "ppl" || metric == "failed") return text;
  if (!center.low) return center.files > 1 ? text + " ± ∞" : text;
  const double half = (*center.high - *center.low) / 2;
  if (center.value == 0 || half == 0) return half == 0 ? text + " ± 0 %" : text;
  const double percent = 100 * half / std::abs(center.value);
  return fmt::format("{} ± {:.{}f} %", text, percent, percent < 1 ? 1 : 0);
}

std::string p_text(double p) { return p < 0.0005 ? "p<0.001" : fmt::format("p={:.3f}", p); }

std::string n_text(const Comparison& change, const Line::Entry& entry, const Line& line) {
  if (!change.test.starts_with("Mann-Whitney")) return fmt::format("n={}", change.n);
  return fmt::format("n={}+{}", line.entries[0].center ? line.entries[0].center->files : 0,
                     entry.center ? entry.center->files : 0);
}

DocumentRow::Cell cell_of(const Line& line, const Line::Entry& entry, const Scale& scale) {
  DocumentRow::Cell cell;
  if (entry.center) cell.value = center_text(*entry.center, scale, line.metric);
  if (!entry.change) return cell;
  const Comparison& change = *entry.change;
  cell.verdict = entry.accepted ? "accepted" : change.verdict;
  if (entry.identical) {
    cell.change = fmt::format("identical (n={})", change.n);
  } else if (!change.change || !change.p_adjusted) {
    cell.change = change.test == "counted" ? change_text(change, change.change.value_or(0)) : "? (too few samples)";
  } else if (*change.p_adjusted >= 0.05) {
    cell.change = fmt::format("~ ({} {})", p_text(*change.p_adjusted), n_text(change, entry, line));
  } else {
    cell.change = fmt::format("{} ({} {})", change_text(change, *change.change), p_text(*change.p_adjusted),
                              n_text(change, entry, line));
  }
  if (change.verdict == "inconclusive" && !change.could_decide) cell.verdict = "undecidable";
  return cell;
}

Scale scale_of_block(const std::vector<Line>& lines, std::size_t begin, std::size_t end) {
  double largest = 0;
  for (std::size_t i = begin; i < end; ++i) {
    for (const Line::Entry& entry : lines[i].entries) {
      if (entry.center) largest = std::max(largest, std::abs(entry.center->value));
    }
  }
  return scale_of(lines[begin].metric, lines[begin].unit, largest);
}

DocumentRow geomean_row(const Geomean& mean, const Scale& scale) {
  DocumentRow row{"geomean", {}};
  for (std::size_t column = 0; column < mean.values.size(); ++column) {
    DocumentRow::Cell cell;
    if (mean.values[column]) cell.value = number(*mean.values[column] * scale.factor);
    if (column > 0 && mean.ratios[column]) cell.change = fmt::format("{:+.2f} %", 100 * (*mean.ratios[column] - 1));
    row.cells.push_back(std::move(cell));
  }
  return row;
}

std::vector<DocumentBlock> blocks_of(const FileComparison& comparison) {
  std::vector<DocumentBlock> blocks;
  const std::vector<Line>& lines = comparison.lines;
  for (std::size_t begin = 0, end = 0; begin < lines.size(); begin = end) {
    while (end < lines.size() && lines[end].metric == lines[begin].metric) ++end;
    const Scale scale = scale_of_block(lines, begin, end);
    DocumentBlock& block = blocks.emplace_back();
    block.title = lines[begin].metric + (scale.unit.empty() ? "" : fmt::format(" ({})", scale.unit));
    for (std::size_t i = begin; i < end; ++i) {
      DocumentRow& row = block.rows.emplace_back();
      row.name = lines[i].row.empty() ? "all" : lines[i].row;
      for (const Line::Entry& entry : lines[i].entries) row.cells.push_back(cell_of(lines[i], entry, scale));
    }
    for (const Geomean& mean : comparison.geomeans) {
      if (mean.metric == lines[begin].metric) block.rows.push_back(geomean_row(mean, scale));
    }
  }
  return blocks;
}

DocumentList differences_of(const FileComparison& comparison, bool forbids) {
  DocumentList list{forbids ? "Not comparable" : "Differences", {}};
  for (const NamedDifference& named : comparison.differences) {
    if (named.difference.forbids != forbids) continue;
    const std::string where = comparison.columns.size() > 2           ? fmt::format(" ({})", named.column)
                              : named.column == comparison.columns[0] ? " (within the base)"
                                                                      : "";
    list.items.push_back(fmt::format("{}: {} -> {}{}{}", named.difference.name, one_line(named.difference.base, 120),
                                     one_line(named.difference.other, 120), where,
                                     named.runs > 1 ? fmt::format(", {} runs", named.runs) : ""));
  }
  return list;
}

std::vector<DocumentList> lists_of(const FileComparison& comparison) {
  DocumentList slo{"Missed slo", {}}, accepted{"Accepted regressions", {}}, notes{"Notes", comparison.notes};
  for (const FailedSlo& failed : comparison.failed_slo) {
    slo.items.push_back(fmt::format("{} in {}: {}{}", failed.row, failed.column, failed.text,
                                    failed.base_failed_too ? " (missed by the base too)" : ""));
  }
  for (const Line& line : comparison.lines) {
    for (const Line::Entry& entry : line.entries) {
      if (!entry.accepted) continue;
      accepted.items.push_back(fmt::format("{} of {}, until {}: {}", line.metric, line.row, entry.accepted->expires,
                                           one_line(entry.accepted->reason)));
    }
  }
  std::vector<DocumentList> lists;
  for (DocumentList list :
       {differences_of(comparison, true), differences_of(comparison, false), slo, accepted, notes}) {
    if (!list.items.empty()) lists.push_back(std::move(list));
  }
  return lists;
}

}  // namespace

std::string change_text(const Comparison& comparison, double value) {
  if (comparison.relative) return fmt::format("{:+.2f} %", 100 * value);
  if (is_share(comparison.metric)) return fmt::format("{:+.2f} pt", 100 * value);
  return fmt::format("{:+.3g}", value);
}

std::string outcome_of(const FileComparison& comparison, const RenderOptions& options) {
  switch (comparison.exit_code(options.strict, options.force)) {
    case ExitCode::kNotComparable:
      return "not comparable";
    case ExitCode::kRegression:
      return comparison.count("regression") > 0 ? "regression" : "missed slo";
    case ExitCode::kInconclusive:
      return "inconclusive";
    default:
      return "no regression";
  }
}

Document document_of(const FileComparison& comparison, const RenderOptions& options) {
  Document document;
  for (std::size_t i = 0; i < comparison.columns.size(); ++i) {
    document.columns.push_back(comparison.files[i] == 1
                                   ? comparison.columns[i]
                                   : fmt::format("{} ({} files)", comparison.columns[i], comparison.files[i]));
  }
  document.blocks = blocks_of(comparison);
  document.lists = lists_of(comparison);
  document.outcome = outcome_of(comparison, options);
  document.sentence = fmt::format("{} worse, {} better, {} same, {} inconclusive; corrected over {} tests (Holm)",
                                  comparison.count("regression"), comparison.count("improvement"),
                                  comparison.count("same"), comparison.count("inconclusive"), comparison.tests);
  if (!comparison.comparable() && !options.force) {
    document.sentence = "the sides answer different questions (see above); compare them all the same with --force";
  }
  return document;
}

}  // namespace qwenbench::compare
