// The forms for programs: CSV and JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "compare/files/render.h"

namespace qwenbench::compare {
namespace {

using Json = nlohmann::ordered_json;

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

std::string field(std::optional<double> value) { return value ? fmt::format("{}", *value) : ""; }

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json json_of(const Line::Entry& entry) {
  Json json;
  if (entry.center) {
    json["value"] = entry.center->value;
    json["ci_low"] = json_of(entry.center->low);
    json["ci_high"] = json_of(entry.center->high);
    json["files"] = entry.center->files;
  }
  if (!entry.change) return json;
  const report::Comparison& change = *entry.change;
  Json& out = json["change"];
  out["relative"] = change.relative;
  out["change"] = json_of(change.change);
  out["ci_low"] = json_of(change.ci_low);
  out["ci_high"] = json_of(change.ci_high);
  out["ci90_low"] = json_of(change.ci90_low);
  out["ci90_high"] = json_of(change.ci90_high);
  out["p_value"] = json_of(change.p_value);
  out["p_adjusted"] = json_of(change.p_adjusted);
  out["minimum_effect"] = change.minimum_effect;
  out["test"] = change.test;
  out["n"] = change.n;
  out["identical"] = entry.identical;
  out["could_decide"] = change.could_decide;
  out["samples_needed"] = change.samples_needed ? Json(*change.samples_needed) : Json(nullptr);
  out["verdict"] = change.verdict;
  if (entry.accepted) out["accepted"] = {{"reason", entry.accepted->reason}, {"expires", entry.accepted->expires}};
  return json;
}

}  // namespace

std::string render_csv(const FileComparison& comparison) {
  std::string text =
      "metric,unit,row,column,files,value,value_low,value_high,change,relative,change_low,change_high,p_value,p_"
      "adjusted,"
      "minimum_effect,test,n,verdict,accepted\r\n";
  for (const Line& line : comparison.lines) {
    for (std::size_t i = 0; i < line.entries.size(); ++i) {
      const Line::Entry& entry = line.entries[i];
      if (!entry.center && !entry.change) continue;
      const Center center = entry.center.value_or(Center{});
      text += fmt::format("{},{},{},{},{},{},{},{}", quoted(line.metric), quoted(line.unit), quoted(line.row),
                          quoted(comparison.columns[i]), center.files, entry.center ? field(center.value) : "",
                          field(center.low), field(center.high));
      if (!entry.change) {
        text += ",,,,,,,,,,,\r\n";
        continue;
      }
      const report::Comparison& change = *entry.change;
      text += fmt::format(",{},{},{},{},{},{},{},{},{},{},{}\r\n", field(change.change), change.relative,
                          field(change.ci_low), field(change.ci_high), field(change.p_value), field(change.p_adjusted),
                          change.minimum_effect, quoted(change.test), change.n, change.verdict,
                          entry.accepted ? quoted(entry.accepted->reason) : "");
    }
  }
  return text;
}

std::string render_json(const FileComparison& comparison, const RenderOptions& options) {
  Json json;
  json["comparison_version"] = 1;
  json["outcome"] = outcome_of(comparison, options);
  json["exit_code"] = static_cast<int>(comparison.exit_code(options.strict, options.force));
  json["row_keys"] = comparison.row_keys;
  json["column_key"] = comparison.column_key;
  json["columns"] = Json::array();
  for (std::size_t i = 0; i < comparison.columns.size(); ++i) {
    json["columns"].push_back({{"name", comparison.columns[i]}, {"files", comparison.files[i]}});
  }
  json["tests"] = comparison.tests;
  json["lines"] = Json::array();
  for (const Line& line : comparison.lines) {
    Json entries = Json::array();
    for (const Line::Entry& entry : line.entries) entries.push_back(json_of(entry));
    json["lines"].push_back({{"metric", line.metric}, {"unit", line.unit}, {"row", line.row}, {"entries", entries}});
  }
  json["geomeans"] = Json::array();
  for (const Geomean& mean : comparison.geomeans) {
    Json values = Json::array(), ratios = Json::array();
    for (const auto& value : mean.values) values.push_back(json_of(value));
    for (const auto& ratio : mean.ratios) ratios.push_back(json_of(ratio));
    json["geomeans"].push_back({{"metric", mean.metric}, {"unit", mean.unit}, {"values", values}, {"ratios", ratios}});
  }
  json["differences"] = Json::array();
  for (const NamedDifference& named : comparison.differences) {
    json["differences"].push_back({{"name", named.difference.name},
                                   {"base", named.difference.base},
                                   {"other", named.difference.other},
                                   {"column", named.column},
                                   {"runs", named.runs},
                                   {"forbids", named.difference.forbids}});
  }
  json["failed_slo"] = Json::array();
  for (const FailedSlo& slo : comparison.failed_slo) {
    json["failed_slo"].push_back(
        {{"row", slo.row}, {"column", slo.column}, {"slo", slo.text}, {"base_failed_too", slo.base_failed_too}});
  }
  json["notes"] = comparison.notes;
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace qwenbench::compare
