// Datasets as they stand in a JSONL file: one request a line, not yet tokens.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace qwenbench::workload {

/// A piece of a message: text, or the path of a picture (resolved).
struct Content {
  enum class Kind { kText, kImage };
  Kind kind = Kind::kText;
  std::string text;
};

struct Message {
  std::string role;
  std::vector<Content> content;
};

/// One line: a conversation, or plain text.
struct Sample {
  std::string id;
  int line = 0;                   // of the file, from 1
  std::vector<Message> messages;  // empty: plain text
  std::string text;               // of a plain-text line
  std::optional<std::string> answer;
  std::string task;
  std::optional<int> max_tokens;
};

struct Dataset {
  std::string name;            // as asked for
  std::filesystem::path path;  // the file
  std::string sha256;          // of the file's bytes
  std::vector<Sample> samples;

  /// "FILE:LINE", for error messages about a sample.
  std::string where(const Sample& sample) const;
};

/// `name` is datasets/NAME.jsonl below profile::home(), or a path. Lines are OpenAI chat requests {"id", "messages":
/// [{"role", "content": text or [{"type": "text", "text"} | {"type": "image_url", "image_url": {"url"}}]}], "answer"?,
/// "task"?, "max_tokens"?} or {"id", "text"}. A picture's path is relative to the dataset's folder. Blank lines are
/// skipped. Throws InputError naming file and line.
Dataset read_dataset(const std::string& name);

/// The same from a text; `path` stands in error messages and gives the folder of the pictures.
Dataset parse_dataset(const std::string& text, const std::string& name, const std::filesystem::path& path);

/// Indexes of `count` samples spread evenly over `size` (0, or more than there are: all), so that every task of a
/// dataset sorted by task is asked its share.
std::vector<std::size_t> spread(std::size_t size, std::size_t count);

}  // namespace qwenbench::workload
