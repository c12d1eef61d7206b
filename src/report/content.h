// What a report says, before it is laid out: shared by the terminal table and Markdown. Private to src/report.
#pragma once

#include <string>
#include <vector>

#include "report/result.h"

namespace qwenbench::report {

struct Row {
  std::string label;               // with unit
  std::vector<std::string> cells;  // one per variant; "-" = not measured
};

struct ChangeRow {
  std::string metric, change, interval, p, verdict;
};

struct Content {
  std::vector<std::string> header;   // sentences: what was run
  std::vector<std::string> columns;  // names of the variants
  std::vector<Row> rows;
  std::string changes_title;          // "baseline -> calibrated"; empty: nothing was compared
  std::vector<ChangeRow> changes;     // of the first pair compared
  std::vector<std::string> warnings;  // "CODE: message; measured impact: ..."
  std::vector<std::string> slo;       // "pass ..." | "FAIL ..."
  std::string verdict;                // status, "none" with a reason in `reasons`
  std::vector<std::string> reasons;
};

Content content_of(const Result& result);

/// The definitions that every report carries.
std::string definitions();

}  // namespace qwenbench::report
