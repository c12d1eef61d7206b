// Typed access to a JSON object whose errors name the file and the key. Private to src/model: no other module sees
// JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace qwenbench::model {

/// Parses a file of at most `max_bytes`. Throws InputError naming it: unreadable, too large, not JSON (with the byte
/// position), nested deeper than any such file is.
nlohmann::json parse_json_file(const std::filesystem::path& path, std::size_t max_bytes = 64u << 20);

/// An object inside a file. A key whose value is null counts as absent, as HF's writers mean it.
class JsonObject {
 public:
  /// `value` must outlive this; `file` and `prefix` ("text_config.") only serve messages.
  JsonObject(const nlohmann::json& value, std::string file, std::string prefix = "");

  bool has(const char* key) const;
  const nlohmann::json& at(const char* key) const;
  JsonObject object(const char* key) const;
  std::string text(const char* key) const;
  bool boolean(const char* key) const;
  double number(const char* key) const;
  /// Throws unless low <= value <= high.
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  /// A size: 1 to 2^20, so that no product of two sizes and a patch overflows.
  int size(const char* key) const;
  int size_or(const char* key, int fallback) const { return has(key) ? size(key) : fallback; }
  bool boolean_or(const char* key, bool fallback) const { return has(key) ? boolean(key) : fallback; }
  std::vector<std::int64_t> integers(const char* key, std::int64_t low, std::int64_t high) const;
  std::vector<double> numbers(const char* key) const;
  std::vector<std::string> texts(const char* key) const;

  /// Throws InputError "FILE: KEY: message".
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;
  const nlohmann::json& value() const { return value_; }

 private:
  const nlohmann::json& value_;
  std::string file_, prefix_;
};

}  // namespace qwenbench::model
