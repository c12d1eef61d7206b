#include "model/tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <unordered_map>

#include "base/error.h"
#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/tokenizer_file.h"
#include "model/utf8.h"

namespace qwenbench::model {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{256} << 20;

/// GPT-2's spelling of bytes as printable characters: printable Latin-1 as itself, the others from U+0100 on.
std::array<char32_t, 256> make_byte_characters() {
  std::array<char32_t, 256> out{};
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool is_printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    out[b] = is_printable ? b : next++;
  }
  return out;
}

std::string spelling_of_byte(int byte) {
  static const std::array<char32_t, 256> characters = make_byte_characters();
  std::string out;
  append_utf8(out, characters[static_cast<std::size_t>(byte)]);
  return out;
}

/// The bytes that a spelling stands for; the text itself where it holds a character that spells no byte (HF decodes
/// added tokens by the same rule).
std::string bytes_of_spelling(const std::string& spelling) {
  static const std::unordered_map<std::string, char> bytes = [] {
    std::unordered_map<std::string, char> out;
    for (int b = 0; b < 256; ++b) out[spelling_of_byte(b)] = static_cast<char>(b);
    return out;
  }();
  std::string out;
  for (std::size_t at = 0; at < spelling.size();) {
    const std::size_t length = utf8_step(spelling, at).length;
    const auto it = bytes.find(spelling.substr(at, length));
    if (it == bytes.end()) return spelling;
    out.push_back(it->second);
    at += length;
  }
  return out;
}

struct Token {
  std::string bytes;
  bool exists = false;
  bool special = false;
};

}  // namespace

struct Tokenizer::Impl {
  std::string name;
  std::vector<Token> tokens;                            // by id
  std::unordered_map<std::string, std::int32_t> vocab;  // byte-level spelling
  std::unordered_map<std::string, std::int32_t> words;  // bytes; only with ignore_merges
  std::unordered_map<std::string, std::int32_t> added;
  AddedTokenMatcher raw_tokens;         // looked for in the text as it is
  AddedTokenMatcher normalized_tokens;  // looked for after NFC
  std::unique_ptr<BytePairEncoder> bpe;

  Impl(const TokenizerFile& file, std::string file_name);

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: {}", name, one_line(what)));
  }
  void add_vocab(const TokenizerFile& file);
  void add_merges(const TokenizerFile& file);
  void add_added_tokens(const TokenizerFile& file);
  Token& claim(std::int32_t id);
  std::int32_t require(const std::string& token, const char* of) const;
  void encode_plain(std::string_view text, std::vector<std::int32_t>& ids) const;
};

Tokenizer::Impl::Impl(const TokenizerFile& file, std::string file_name) : name(std::move(file_name)) {
  add_vocab(file);
  add_merges(file);
  add_added_tokens(file);
}

Token& Tokenizer::Impl::claim(std::int32_t id) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= tokens.size()) tokens.resize(index + 1);
  return tokens[index];
}

void Tokenizer::Impl::add_vocab(const TokenizerFile& file) {
  vocab.reserve(file.vocab.size());
  for (const auto& [spelling, id] : file.vocab) {
    Token& token = claim(id);
    if (token.exists) fail(fmt::format("id {} is used twice in \"vocab\"", id));
    token.exists = true;
    token.bytes = bytes_of_spelling(spelling);
    vocab[spelling] = id;
    if (file.ignore_merges) words[token.bytes] = id;
  }
}

std::int32_t Tokenizer::Impl::require(const std::string& token, const char* of) const {
  const auto it = vocab.find(token);
  if (it == vocab.end()) fail(fmt::format("{} \"{}\" is not in \"vocab\"", of, token));
  return it->second;
}

void Tokenizer::Impl::add_merges(const TokenizerFile& file) {
  std::array<std::int32_t, 256> byte_ids{};
  for (int b = 0; b < 256; ++b) {
    const std::string what = fmt::format("the token of byte 0x{:02x},", b);
    byte_ids[static_cast<std::size_t>(b)] = require(spelling_of_byte(b), what.c_str());
  }
  bpe = std::make_unique<BytePairEncoder>(byte_ids);
  bpe->reserve(file.merges.size());
  std::int32_t rank = 0;
  for (const auto& [left, right] : file.merges) {
    const std::int32_t left_id = require(left, "the merged token");
    const std::int32_t right_id = require(right, "the merged token");
    bpe->add_merge(left_id, right_id, rank++, require(left + right, "the result of a merge,"));
  }
}

void Tokenizer::Impl::add_added_tokens(const TokenizerFile& file) {
  std::vector<AddedToken> raw, normalized;
  for (const AddedToken& added_token : file.added) {
    if (added_token.content.empty()) continue;
    Token& token = claim(added_token.id);
    const auto in_vocab = vocab.find(added_token.content);
    const bool same = in_vocab != vocab.end() && in_vocab->second == added_token.id;
    if ((token.exists || in_vocab != vocab.end()) && !same) {
      fail(fmt::format("added token \"{}\" and id {} do not agree with the other tokens", added_token.content,
                       added_token.id));
    }
    if (!added.emplace(added_token.content, added_token.id).second) {
      fail(fmt::format("added token \"{}\" stands twice", added_token.content));
    }
    token.exists = true;
    token.special = added_token.special;
    token.bytes = bytes_of_spelling(added_token.content);
    (added_token.normalized ? normalized : raw).push_back(added_token);
    if (added_token.normalized) normalized.back().content = to_nfc(added_token.content);
  }
  raw_tokens = AddedTokenMatcher(std::move(raw));
  normalized_tokens = AddedTokenMatcher(std::move(normalized));
}

void Tokenizer::Impl::encode_plain(std::string_view text, std::vector<std::int32_t>& ids) const {
  split_words(text, [&](std::string_view word) {
    if (!words.empty()) {
      const auto it = words.find(std::string(word));
      if (it != words.end()) return ids.push_back(it->second);
    }
    bpe->encode(word, ids);
  });
}

Tokenizer Tokenizer::load(const std::filesystem::path& model_dir) {
  const bool is_fast = std::filesystem::exists(model_dir / "tokenizer.json");
  return Tokenizer(std::make_shared<const Impl>(read_tokenizer_files(model_dir),
                                                (model_dir / (is_fast ? "tokenizer.json" : "vocab.json")).string()));
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  return Tokenizer(std::make_shared<const Impl>(parse_tokenizer_json(json, name), name));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view utf8) const {
  if (utf8.size() > kMaxTextBytes) {
    throw InputError(
        fmt::format("text of {} bytes is too long to tokenize: the limit is {}", utf8.size(), kMaxTextBytes));
  }
  const std::size_t invalid = find_invalid_utf8(utf8);
  if (invalid != std::string_view::npos) {
    throw InputError(fmt::format("text is not valid UTF-8 at byte {} (0x{:02x}): convert it to UTF-8", invalid,
                                 static_cast<unsigned char>(utf8[invalid])));
  }
  std::vector<std::int32_t> ids;
  impl_->raw_tokens.split(utf8, [&](std::int32_t raw_id, std::string_view raw) {
    if (raw_id >= 0) return ids.push_back(raw_id);
    const std::string text = to_nfc(raw);
    impl_->normalized_tokens.split(text, [&](std::int32_t id, std::string_view piece) {
      if (id >= 0) return ids.push_back(id);
      impl_->encode_plain(piece, ids);
    });
  });
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (!(skip_special && is_special(id))) bytes += bytes_of(id);
  }
  return take_valid_utf8(bytes, true);
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  const std::string key(token);
  if (const auto it = impl_->added.find(key); it != impl_->added.end()) return it->second;
  if (const auto it = impl_->vocab.find(key); it != impl_->vocab.end()) return it->second;
  return std::nullopt;
}

std::string_view Tokenizer::bytes_of(std::int32_t id) const {
  return id < 0 || id >= vocab_size() ? std::string_view() : impl_->tokens[static_cast<std::size_t>(id)].bytes;
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->tokens[static_cast<std::size_t>(id)].special;
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->tokens.size()); }

std::string StreamDecoder::push(std::int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  pending_ += tokenizer_.bytes_of(id);
  return take_valid_utf8(pending_, false);
}

std::string StreamDecoder::flush() { return take_valid_utf8(pending_, true); }

}  // namespace qwenbench::model
