// Which full KV blocks hold which prefix. Bookkeeping only: blocks are owned and counted by the BlockManager.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace qwenbench::engine {

/// The identity of a block and of everything before it: SHA-256 over the key of the block before, the block's token
/// ids, and the hash of each picture whose pads it holds. Pads are equal ids whatever they show, so the ids alone would
/// match prefixes with different pictures.
using BlockKey = std::string;

/// A picture for the keys: its pads are tokens [first, first + count).
struct PictureIdentity {
  int first;
  int count;
  std::string sha256;
};

/// Appends the keys of the blocks that `tokens` fills and `keys` does not have yet.
void extend_block_keys(std::vector<BlockKey>& keys, std::span<const std::int32_t> tokens,
                       std::span<const PictureIdentity> pictures, int block_size);

class PrefixCache {
 public:
  explicit PrefixCache(int num_blocks) : key_of_(num_blocks) {}

  /// The longest run of cached blocks that starts `keys`, at most max_blocks of them.
  std::vector<std::int32_t> match(std::span<const BlockKey> keys, int max_blocks) const;

  /// `block` now holds what `key` names. Where another block holds it already, that one stays.
  void insert(const BlockKey& key, std::int32_t block);

  bool holds(std::int32_t block) const { return !key_of_[block].empty(); }
  /// The block is about to be overwritten.
  void forget(std::int32_t block);
  void clear();
  int size() const { return static_cast<int>(block_of_.size()); }

 private:
  std::unordered_map<BlockKey, std::int32_t> block_of_;
  std::vector<BlockKey> key_of_;  // by block; empty: not cached
};

}  // namespace qwenbench::engine
