#include "report/result_file.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "report/json_fields.h"
#include "report/result_fields.h"

namespace qwenbench::report {
namespace {

constexpr std::size_t kLineWidth = 120;
constexpr auto kReplace = Json::error_handler_t::replace;  // a generated text may end inside a UTF-8 character

bool only_scalars(const Json& value) {
  return std::none_of(value.begin(), value.end(), [](const Json& element) { return element.is_structured(); });
}

/// Indented where it helps to read; what fits on a line, lists of plain values, and raw samples stay on one line.
void print(const Json& value, std::size_t indent, bool raw, std::string& out) {
  const bool leaf = !value.is_structured() || value.empty() || raw || (value.is_array() && only_scalars(value));
  if (leaf) {
    out += value.dump(-1, ' ', false, kReplace);
    return;
  }
  if (only_scalars(value) && value.size() <= 12) {
    const std::string line = value.dump(-1, ' ', false, kReplace);
    if (line.size() + indent <= kLineWidth) {
      out += line;
      return;
    }
  }
  const std::string padding(indent + 1, ' ');
  const bool object = value.is_object();
  out += object ? "{\n" : "[\n";
  for (auto element = value.begin(); element != value.end(); ++element) {
    if (element != value.begin()) out += ",\n";
    out += padding;
    if (object) out += Json(element.key()).dump() + ": ";
    // The elements of "requests" are raw samples: one line each.
    const bool samples = object && element.key() == "requests" && element->is_array();
    if (samples && !element->empty()) {
      out += "[\n";
      for (std::size_t i = 0; i < element->size(); ++i) {
        if (i > 0) out += ",\n";
        out += padding + " ";
        print((*element)[i], 0, true, out);
      }
      out += fmt::format("\n{}]", padding);
    } else {
      print(*element, indent + 1, false, out);
    }
  }
  out += fmt::format("\n{}{}", std::string(indent, ' '), object ? '}' : ']');
}

Warning not_finite_warning(const std::vector<std::string>& paths) {
  const std::size_t shown = std::min<std::size_t>(paths.size(), 5);
  std::string names =
      fmt::format("{}", fmt::join(paths.begin(), paths.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (paths.size() > 5) names += ", ...";
  return {"NOT_FINITE", fmt::format("{} values are NaN or infinite and were written as null: {}", paths.size(), names),
          std::nullopt};
}

Json parse(std::string_view text, const std::string& source) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw InputError(
        one_line(fmt::format("{}: no JSON or cut short ({}); this is no usable result file", source, error.what())));
  }
}

/// Refuses what is no result file, or a newer one, before any field is read.
void check_version(const Json& json, const std::string& source) {
  const bool ours = json.is_object() && json.contains("schema_version") && json.contains("benchmark_id") &&
                    json.contains("variants") && json["schema_version"].is_number_integer();
  if (!ours) throw InputError(source + ": JSON, but no result file of qwenbench");
  const std::int64_t version = json["schema_version"].get<std::int64_t>();
  if (version > kSchemaVersion) {
    throw InputError(
        fmt::format("{}: written by a newer qwenbench (schema_version {}, this one reads up to {}); update", source,
                    version, kSchemaVersion));
  }
  if (version < 1) throw InputError(fmt::format("{}: schema_version {} never existed", source, version));
}

}  // namespace

std::string to_json(const Result& result) {
  Json json;
  std::vector<std::string> non_finite;
  FieldWriter writer(json, "", non_finite);
  fields(writer, result);
  json["schema_version"] = kSchemaVersion;
  if (result.engine.dummy_weights()) {
    json["verdict"] = nullptr;
    for (Json& variant : json["variants"]) variant["quality"] = nullptr;
  }
  if (!non_finite.empty()) {
    Json warning;
    std::vector<std::string> none;
    FieldWriter warning_writer(warning, "", none);
    const Warning not_finite = not_finite_warning(non_finite);
    fields(warning_writer, not_finite);
    json["warnings"].push_back(std::move(warning));
  }
  std::string text;
  print(json, 0, false, text);
  return text + "\n";
}

Result from_json(std::string_view text, const std::string& source) {
  const Json json = parse(text, source);
  check_version(json, source);
  Result result;
  FieldReader reader(json, source + ": ");
  fields(reader, result);
  return result;
}

void write_result(const std::filesystem::path& path, const Result& result) {
  write_file_atomically(path, to_json(result));
}

Result read_result(const std::filesystem::path& path) { return from_json(read_file(path), path.string()); }

}  // namespace qwenbench::report
