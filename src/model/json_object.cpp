#include "model/json_object.h"

#include <fmt/format.h>

#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::model {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::int64_t kMaxSize = 1 << 20;

}  // namespace

nlohmann::json parse_json_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (!error && bytes > max_bytes) {
    throw InputError(fmt::format("{}: {} bytes, more than such a file can need ({})", path.string(), bytes, max_bytes));
  }
  const std::string content = read_file(path);
  const auto limit_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) throw InputError(fmt::format("{}: nested deeper than {}", path.string(), kMaxDepth));
    return true;
  };
  try {
    return nlohmann::json::parse(content, limit_depth);
  } catch (const nlohmann::json::parse_error& cause) {
    throw InputError(fmt::format("{}: not JSON: {}", path.string(), one_line(cause.what(), 160)));
  } catch (const nlohmann::json::exception& cause) {
    throw InputError(fmt::format("{}: {}", path.string(), one_line(cause.what(), 160)));
  }
}

JsonObject::JsonObject(const nlohmann::json& value, std::string file, std::string prefix)
    : value_(value), file_(std::move(file)), prefix_(std::move(prefix)) {
  if (!value_.is_object()) {
    const std::string key = prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1) + ": ";
    throw InputError(fmt::format("{}: {}must be a JSON object, is {}", file_, one_line(key, 120), value_.type_name()));
  }
}

void JsonObject::fail(const std::string& key, const std::string& message) const {
  throw InputError(fmt::format("{}: {}: {}", file_, one_line(prefix_ + key, 120), message));
}

bool JsonObject::has(const char* key) const {
  const auto found = value_.find(key);
  return found != value_.end() && !found->is_null();
}

const nlohmann::json& JsonObject::at(const char* key) const {
  if (!has(key)) fail(key, "missing");
  return *value_.find(key);
}

JsonObject JsonObject::object(const char* key) const { return JsonObject(at(key), file_, prefix_ + key + "."); }

std::string JsonObject::text(const char* key) const {
  const auto& found = at(key);
  if (!found.is_string()) fail(key, fmt::format("must be a string, is {}", found.type_name()));
  return found.get<std::string>();
}

bool JsonObject::boolean(const char* key) const {
  const auto& found = at(key);
  if (!found.is_boolean()) fail(key, fmt::format("must be true or false, is {}", found.type_name()));
  return found.get<bool>();
}

double JsonObject::number(const char* key) const {
  const auto& found = at(key);
  if (!found.is_number()) fail(key, fmt::format("must be a number, is {}", found.type_name()));
  return found.get<double>();
}

namespace {

std::int64_t checked_integer(const JsonObject& object, const std::string& key, const nlohmann::json& value,
                             std::int64_t low, std::int64_t high) {
  if (!value.is_number_integer())
    object.fail(key, fmt::format("must be an integer, is {}", value.dump().substr(0, 40)));
  const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  const std::int64_t number = huge ? INT64_MAX : value.get<std::int64_t>();
  if (huge || number < low || number > high) {
    object.fail(key, fmt::format("must be between {} and {}, is {}", low, high, value.dump()));
  }
  return number;
}

const nlohmann::json& checked_array(const JsonObject& object, const char* key) {
  const auto& found = object.at(key);
  if (!found.is_array()) object.fail(key, fmt::format("must be a list, is {}", found.type_name()));
  return found;
}

}  // namespace

std::int64_t JsonObject::integer(const char* key, std::int64_t low, std::int64_t high) const {
  return checked_integer(*this, key, at(key), low, high);
}

int JsonObject::size(const char* key) const { return static_cast<int>(integer(key, 1, kMaxSize)); }

std::vector<std::int64_t> JsonObject::integers(const char* key, std::int64_t low, std::int64_t high) const {
  std::vector<std::int64_t> result;
  for (const auto& item : checked_array(*this, key)) result.push_back(checked_integer(*this, key, item, low, high));
  return result;
}

std::vector<double> JsonObject::numbers(const char* key) const {
  std::vector<double> result;
  for (const auto& item : checked_array(*this, key)) {
    if (!item.is_number()) fail(key, fmt::format("must be a list of numbers, holds {}", item.type_name()));
    result.push_back(item.get<double>());
  }
  return result;
}

std::vector<std::string> JsonObject::texts(const char* key) const {
  std::vector<std::string> result;
  for (const auto& item : checked_array(*this, key)) {
    if (!item.is_string()) fail(key, fmt::format("must be a list of strings, holds {}", item.type_name()));
    result.push_back(item.get<std::string>());
  }
  return result;
}

}  // namespace qwenbench::model
