// Cuts text into the words that byte-pair encoding may not cross.
#pragma once

#include <functional>
#include <string_view>

namespace qwenbench::model {

/// Calls `word` for each piece that Qwen2's pattern (kQwenPattern) isolates, in order; together they are `text`, which
/// must be valid UTF-8. Thread-safe.
void split_words(std::string_view text, const std::function<void(std::string_view)>& word);

}  // namespace qwenbench::model
