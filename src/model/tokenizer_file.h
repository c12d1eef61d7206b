// What a tokenizer's files say, checked, before any table is built.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qwenbench::model {

/// A token that is found in the raw text before anything else (HF's AddedToken).
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool single_word = false;  // only where no word character stands next to it
  bool normalized = false;   // looked for in the NFC text instead of the raw one
};

struct TokenizerFile {
  std::vector<std::pair<std::string, std::int32_t>> vocab;  // byte-level spelling, id
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added;
  bool ignore_merges = false;  // a word that is in the vocabulary is not split
};

/// Tokens and ids beyond this are no vocabulary, and are refused.
inline constexpr std::int32_t kMaxTokenId = 2'000'000;

/// Qwen2's pre-tokenizer pattern, the only one that is accepted.
extern const std::string_view kQwenPattern;

/// Throws InputError that begins with `name` and names the key.
TokenizerFile parse_tokenizer_json(std::string_view json, const std::string& name);

/// tokenizer.json, or vocab.json + merges.txt + tokenizer_config.json.
TokenizerFile read_tokenizer_files(const std::filesystem::path& model_dir);

}  // namespace qwenbench::model
