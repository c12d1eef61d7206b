// Regressions that somebody has acknowledged: {"accepted": [{"metric", "reason", "expires", "row"?, "up_to"?}]}.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace qwenbench::report {

struct Acceptance {
  std::string metric;           // as in a result file; "failed": more failed requests; "slo": a missed slo
  std::string row;              // the row's name, e.g. the variant; "": every row
  std::string reason;           // why, in words
  std::string expires;          // "2026-12-31": the last day on which it holds
  std::optional<double> up_to;  // largest change that is accepted: relative, or in the metric's unit
};

/// Throws InputError: no JSON, an unknown key, a missing reason or date, no such metric, no such day.
std::vector<Acceptance> read_accept_file(const std::filesystem::path& path);

}  // namespace qwenbench::report
