// Finds added tokens ("<|im_start|>") in text, as HF's AddedVocabulary does.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer_file.h"

namespace qwenbench::model {

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  /// Calls `piece` in order: a token's id with the text that it covers (with the space that lstrip/rstrip take), or -1
  /// with the text between tokens. Leftmost first, longest of those. `text` is valid UTF-8.
  void split(std::string_view text, const std::function<void(std::int32_t id, std::string_view piece)>& piece) const;

 private:
  struct Match {
    const AddedToken* token = nullptr;
    std::size_t begin = 0, end = 0;
  };
  Match find(std::string_view text, std::size_t from) const;

  std::vector<AddedToken> tokens_;
  // A trie: (node, byte) -> node, and the token that ends in a node (-1: none). Node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<std::int32_t> token_at_;
  bool is_first_byte_[256] = {};
};

}  // namespace qwenbench::model
