// Byte-pair encoding: merges of ids by rank, as Hugging Face's `tokenizers` orders them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qwenbench::model {

class BytePairEncoder {
 public:
  /// byte_ids[b]: the token of the single byte b.
  explicit BytePairEncoder(const std::array<std::int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  /// Merges of lower rank are applied first, whatever the order of the calls; a pair given twice keeps the last.
  void add_merge(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t merged);
  void reserve(std::size_t merges) { merges_.reserve(merges); }

  /// Appends the ids of `word` (bytes). O(n log n). `word` is at most 2^31 - 1 bytes.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  struct Merge {
    std::int32_t rank;
    std::int32_t merged;
  };
  struct Word;
  const Merge* find(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> byte_ids_;
  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace qwenbench::model
