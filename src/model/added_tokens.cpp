#include "model/added_tokens.h"

#include <algorithm>

#include "model/utf8.h"

namespace qwenbench::model {
namespace {

std::uint64_t edge(std::uint32_t node, char byte) {
  return static_cast<std::uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

/// Begin of the character that ends at `end` > 0.
std::size_t previous_character(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

char32_t character_before(std::string_view text, std::size_t end) {
  const std::size_t begin = previous_character(text, end);
  return utf8_code_point(text.substr(begin, end - begin));
}

char32_t character_at(std::string_view text, std::size_t at) {
  return utf8_code_point(text.substr(at, utf8_step(text, at).length));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), token_at_{-1} {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    std::uint32_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [it, is_new] = edges_.try_emplace(edge(node, byte), static_cast<std::uint32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = it->second;
    }
    if (node == 0) continue;  // empty: matches nothing
    token_at_[node] = static_cast<std::int32_t>(i);
    is_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])] = true;
  }
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, std::size_t from) const {
  Match best;
  for (std::size_t begin = from; begin < text.size() && !best.token; ++begin) {
    if (!is_first_byte_[static_cast<unsigned char>(text[begin])]) continue;
    std::uint32_t node = 0;
    for (std::size_t at = begin; at < text.size(); ++at) {
      const auto it = edges_.find(edge(node, text[at]));
      if (it == edges_.end()) break;
      node = it->second;
      if (token_at_[node] >= 0) best = {&tokens_[static_cast<std::size_t>(token_at_[node])], begin, at + 1};
    }
  }
  return best;
}

void AddedTokenMatcher::split(std::string_view text,
                              const std::function<void(std::int32_t, std::string_view)>& piece) const {
  std::size_t done = 0;
  std::size_t from = 0;
  for (Match match = find(text, from); match.token; match = find(text, from)) {
    from = match.end;
    std::size_t begin = match.begin;
    std::size_t end = match.end;
    if (match.token->single_word && ((begin > 0 && is_word(character_before(text, begin))) ||
                                     (end < text.size() && is_word(character_at(text, end))))) {
      continue;
    }
    if (match.token->lstrip) {
      while (begin > done && is_space(character_before(text, begin))) begin = previous_character(text, begin);
    }
    if (match.token->rstrip) {
      while (end < text.size() && is_space(character_at(text, end))) end += utf8_step(text, end).length;
    }
    if (begin > done) piece(-1, text.substr(done, begin - done));
    piece(match.token->id, text.substr(begin, end - begin));
    done = end;
  }
  if (done < text.size()) piece(-1, text.substr(done));
}

}  // namespace qwenbench::model
