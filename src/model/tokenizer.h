// Qwen's byte-level BPE tokenizer: the ids that Hugging Face's `tokenizers` gives for the same files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qwenbench::model {

/// Immutable after loading; every member may be called from several threads. Copies share the tables.
class Tokenizer {
 public:
  /// Reads `model_dir`/tokenizer.json, or where that is missing vocab.json + merges.txt + the added tokens of
  /// tokenizer_config.json. Throws InputError naming file and key: not JSON, a pipeline that is not Qwen2's (NFC; split
  /// by a pattern, isolated; byte level), a merge of unknown tokens, an id that is used twice, a byte without a token.
  static Tokenizer load(const std::filesystem::path& model_dir);
  /// From the text of a tokenizer.json; `name` stands in error messages.
  static Tokenizer from_json(std::string_view json, const std::string& name);

  /// No special token is added; added tokens in the text become their ids. Throws InputError with the byte offset where
  /// the text is no UTF-8, or where it is longer than 256 MiB.
  std::vector<std::int32_t> encode(std::string_view utf8) const;

  /// Always valid UTF-8: bytes that do not form a character become U+FFFD. Ids without a token are skipped, as in HF;
  /// with skip_special, so are special added tokens.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  /// The id of an added token ("<|im_end|>") or of a vocabulary entry in its byte-level spelling ("Ġthe").
  std::optional<std::int32_t> id_of(std::string_view token) const;
  /// The bytes that `id` stands for; empty where the id has no token.
  std::string_view bytes_of(std::int32_t id) const;
  /// True for added tokens marked special (<|im_end|>; not <think>).
  bool is_special(std::int32_t id) const;
  /// Largest id + 1. The model's embedding may have more rows (padding).
  int vocab_size() const;

  struct Impl;

 private:
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// Text as it is generated: push() returns what became complete, never half a character. All pieces together, with
/// flush()'s, are decode() of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  std::string push(std::int32_t id);
  /// What is left at the end: U+FFFD for an unfinished character.
  std::string flush();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;  // at most 3 bytes: the beginning of a character
};

}  // namespace qwenbench::model
