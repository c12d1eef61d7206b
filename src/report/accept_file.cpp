#include "report/accept_file.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "report/metrics.h"

namespace qwenbench::report {
namespace {

using Json = nlohmann::ordered_json;

bool is_day(const std::string& text) {
  int year = 0, month = 0, day = 0, end = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &year, &month, &day, &end) != 3) return false;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  return text.size() == 10 && static_cast<std::size_t>(end) == text.size() && date.ok();
}

Acceptance read_acceptance(const Json& json, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw InputError(fmt::format("{}: {}", where, what)); };
  if (!json.is_object()) fail("an object is expected");
  Acceptance entry;
  for (const auto& [key, value] : json.items()) {
    std::string* text = key == "metric"    ? &entry.metric
                        : key == "row"     ? &entry.row
                        : key == "reason"  ? &entry.reason
                        : key == "expires" ? &entry.expires
                                           : nullptr;
    if (text != nullptr && value.is_string()) {
      *text = value.get<std::string>();
    } else if (key == "up_to" && value.is_number() && value.get<double>() > 0) {
      entry.up_to = value.get<double>();
    } else if (text != nullptr || key == "up_to") {
      fail(fmt::format("{} must be {}", key, text != nullptr ? "a text" : "a number above 0"));
    } else {
      fail(fmt::format("unknown key {}; there are metric, row, reason, expires, up_to", one_line(key, 60)));
    }
  }
  if (entry.metric.empty()) fail("names no metric");
  if (entry.metric != "failed" && entry.metric != "slo") metric_info(entry.metric);
  if (entry.reason.find_first_not_of(" \t") == std::string::npos) fail("gives no reason");
  if (!is_day(entry.expires)) fail("needs \"expires\", a day as in \"2026-12-31\"");
  return entry;
}

}  // namespace

std::vector<Acceptance> read_accept_file(const std::filesystem::path& path) {
  const std::string source = path.string();
  const Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (!json.is_object() || json.size() != 1 || !json.contains("accepted") || !json["accepted"].is_array()) {
    throw InputError(
        fmt::format("{}: {{\"accepted\": [{{\"metric\", \"reason\", \"expires\"}}, ...]}} is expected", source));
  }
  std::vector<Acceptance> accepted;
  for (const Json& entry : json["accepted"]) {
    accepted.push_back(read_acceptance(entry, fmt::format("{}: accepted[{}]", source, accepted.size())));
  }
  return accepted;
}

}  // namespace qwenbench::report
