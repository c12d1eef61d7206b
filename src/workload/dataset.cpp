#include "workload/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "profile/profile.h"

namespace qwenbench::workload {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// One line while it is read: errors say where.
class Line {
 public:
  Line(const fs::path& path, int number) : path_(path), number_(number) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}:{}: {}", path_.string(), number_, what));
  }

  const Json& need(const Json& object, const char* key, const std::string& where) const {
    const auto found = object.find(key);
    if (found == object.end()) fail(fmt::format("{}has no \"{}\"", where, key));
    return *found;
  }

  std::string text(const Json& object, const char* key, const std::string& where) const {
    const Json& value = need(object, key, where);
    if (!value.is_string()) fail(fmt::format("{}\"{}\" must be a text", where, key));
    return value.get<std::string>();
  }

  Content content(const Json& part, const std::string& where) const {
    if (!part.is_object()) fail(fmt::format("{}a part of the content must be an object", where));
    const std::string type = text(part, "type", where);
    if (type == "text") return {Content::Kind::kText, text(part, "text", where)};
    if (type != "image_url")
      fail(fmt::format("{}content type \"{}\" is not text or image_url", where, one_line(type, 60)));
    const Json& image = need(part, "image_url", where);
    std::string url = image.is_string() ? image.get<std::string>() : image.is_object() ? text(image, "url", where) : "";
    if (url.starts_with("file://")) url = url.substr(7);
    if (url.empty() || url.find("://") != std::string::npos || url.starts_with("data:")) {
      fail(fmt::format("{}image_url must be the path of a PNG or JPEG file, not {}", where, one_line(url, 60)));
    }
    return {Content::Kind::kImage, (path_.parent_path() / url).lexically_normal().string()};
  }

  Message message(const Json& json, std::size_t index) const {
    const std::string where = fmt::format("messages[{}] ", index);
    if (!json.is_object()) fail(where + "must be an object");
    Message message{text(json, "role", where), {}};
    const Json& content_json = need(json, "content", where);
    if (content_json.is_string()) {
      message.content.push_back({Content::Kind::kText, content_json.get<std::string>()});
    } else if (content_json.is_array()) {
      for (const auto& part : content_json) message.content.push_back(content(part, where));
    } else {
      fail(where + "\"content\" must be a text or a list of parts");
    }
    return message;
  }

  std::string id(const Json& json) const {
    const auto found = json.find("id");
    if (found == json.end()) return fmt::format("line-{}", number_);
    if (found->is_string() && !found->get_ref<const std::string&>().empty()) return found->get<std::string>();
    if (found->is_number_integer()) return found->dump();
    fail("\"id\" must be a text or an integer");
  }

  Sample sample(const Json& json) const {
    if (!json.is_object()) fail("must be a JSON object");
    Sample sample;
    sample.id = id(json);
    sample.line = number_;
    if (json.contains("messages") == json.contains("text")) fail("needs either \"messages\" or \"text\"");
    if (json.contains("text")) {
      sample.text = text(json, "text", "");
      if (sample.text.empty()) fail("\"text\" is empty");
    } else {
      const Json& messages = json["messages"];
      if (!messages.is_array() || messages.empty()) fail("\"messages\" must be a list that is not empty");
      for (const auto& entry : messages) sample.messages.push_back(message(entry, sample.messages.size()));
    }
    if (json.contains("answer")) sample.answer = text(json, "answer", "");
    if (json.contains("task")) sample.task = text(json, "task", "");
    if (json.contains("max_tokens")) sample.max_tokens = max_tokens(json["max_tokens"]);
    return sample;
  }

  Json parse(std::string_view line) const {
    try {
      return Json::parse(line);
    } catch (const Json::exception& error) {
      const std::string text = error.what();
      const auto at = text.find("column");
      fail("not valid JSON at " + one_line(at == std::string::npos ? text : text.substr(at), 200));
    }
  }

 private:
  int max_tokens(const Json& json) const {
    if (!json.is_number_integer() || json.get<double>() < 1 || json.get<double>() > 1 << 24) {
      fail("\"max_tokens\" must be a positive integer");
    }
    return json.get<int>();
  }

  const fs::path& path_;
  int number_;
};

}  // namespace

std::string Dataset::where(const Sample& sample) const { return fmt::format("{}:{}", path.string(), sample.line); }

Dataset parse_dataset(const std::string& text, const std::string& name, const fs::path& path) {
  Dataset dataset{name, path, sha256_hex(text), {}};
  std::map<std::string, int> seen;  // id -> line
  int number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content(text.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Line line(dataset.path, number);
    Sample sample = line.sample(line.parse(content));
    const auto [first, is_new] = seen.emplace(sample.id, number);
    if (!is_new) line.fail(fmt::format("the id {} stands in line {} already", one_line(sample.id, 80), first->second));
    dataset.samples.push_back(std::move(sample));
  }
  if (dataset.samples.empty()) throw InputError(fmt::format("{}: holds no requests", path.string()));
  return dataset;
}

Dataset read_dataset(const std::string& name) {
  const bool is_path = name.find('/') != std::string::npos || name.ends_with(".jsonl");
  const fs::path path = is_path ? profile::resolve_path(name) : profile::home() / "datasets" / (name + ".jsonl");
  std::error_code error;
  if (!fs::exists(path, error))
    throw InputError(fmt::format("dataset {}: there is no {}", one_line(name), path.string()));
  if (!fs::is_regular_file(path, error)) throw InputError(fmt::format("dataset {}: not a file", path.string()));
  return parse_dataset(read_file(path), name, path);
}

std::vector<std::size_t> spread(std::size_t size, std::size_t count) {
  if (count == 0 || count > size) count = size;
  std::vector<std::size_t> indexes(count);
  for (std::size_t i = 0; i < count; ++i) indexes[i] = i * size / count;
  return indexes;
}

}  // namespace qwenbench::workload
