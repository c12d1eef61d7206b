// Helpers of the model tests: temporary folders, small checkpoints, the text of an error.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/safetensors.h"

namespace qwenbench::model {

inline const std::filesystem::path kFixtures = "fixtures/checkpoints";

/// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "qwenbench-model-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// What an InputError said; fails the test where nothing was thrown or the message is not one line.
template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const InputError& error) {
    const std::string text = error.what();
    CHECK_MESSAGE(text.find('\n') == std::string::npos, text);
    return text;
  }
  FAIL_CHECK("no error was thrown");
  return "";
}

#define CHECK_CONTAINS(text, part)                                                                                \
  do {                                                                                                            \
    const std::string whole_text = (text), wanted_part = (part);                                                  \
    CHECK_MESSAGE(whole_text.find(wanted_part) != std::string::npos, whole_text << " || lacks: " << wanted_part); \
  } while (false)

/// The bytes of a safetensors file with this header text.
inline std::string safetensors_bytes(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + std::string(data_bytes, '\1');
}

/// A tensor that owns its values.
template <class T>
SafetensorsItem item(const std::string& name, DType dtype, std::vector<std::int64_t> shape, std::vector<T> values) {
  return {name, dtype, std::move(shape),
          [values](const AppendBytes& append) { append(values.data(), values.size() * sizeof(T)); }};
}

inline nlohmann::json load_json(const std::filesystem::path& path) { return nlohmann::json::parse(read_file(path)); }

}  // namespace qwenbench::model
