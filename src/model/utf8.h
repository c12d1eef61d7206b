// UTF-8 as bytes: validation, lossy repair, NFC, and the character classes that added tokens ask for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qwenbench::model {

/// What stands at one position of a byte string.
struct Utf8Step {
  std::size_t length = 0;  // bytes of the character, or of the damaged prefix that one U+FFFD replaces; at least 1
  bool valid = false;
  bool truncated = false;  // the text ends inside a character that was valid so far
};

/// `at` < text.size(). Overlong forms, surrogates and values above U+10FFFF are damage (Unicode table 3-7).
Utf8Step utf8_step(std::string_view text, std::size_t at);

/// Offset of the first damaged byte, or npos.
std::size_t find_invalid_utf8(std::string_view text);

/// The code point of a valid character.
char32_t utf8_code_point(std::string_view character);
void append_utf8(std::string& out, char32_t code_point);

/// Moves what is complete from `pending` to the result; a damaged sequence becomes one U+FFFD ("maximal subpart", as
/// Rust's from_utf8_lossy). An unfinished character stays in `pending`, or becomes U+FFFD where `at_end`.
std::string take_valid_utf8(std::string& pending, bool at_end);

/// Normalization form C of valid UTF-8, in O(n log n).
std::string to_nfc(std::string_view text);

/// Unicode White_Space (\s of HF's patterns): not U+180E, unlike PCRE2's \s.
bool is_space(char32_t c);
/// \w of Rust's regex crate: alphabetic, mark, decimal digit, connector, joiner.
bool is_word(char32_t c);

}  // namespace qwenbench::model
