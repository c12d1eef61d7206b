// Who holds which KV block. A block may be held by several sequences (a shared prefix); nobody writes to it then.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/prefix_cache.h"

namespace qwenbench::engine {

class BlockManager {
 public:
  /// `cache` may be null: no prefix caching. It must outlive the manager.
  BlockManager(int num_blocks, PrefixCache* cache);

  int num_blocks() const { return static_cast<int>(holders_.size()); }
  /// Blocks that nobody holds; some may still be cached prefixes.
  int num_free() const { return num_free_; }
  int holders(std::int32_t block) const { return holders_[block]; }

  /// A block for writing, held once: the free one that is longest out of use; a prefix in it is forgotten. There must
  /// be a free one (std::logic_error).
  std::int32_t allocate();

  /// One more holder of a block that is held, or free and cached.
  void retain(std::int32_t block);

  /// One holder less. A cached block without holders can be found again until it is allocated; others go first.
  void release(std::int32_t block);

 private:
  void link(std::int32_t block, std::int32_t after);
  void unlink(std::int32_t block);

  PrefixCache* cache_;
  std::vector<int> holders_;
  // Free blocks as a ring through the entry num_blocks(), next to be allocated first: O(1) removal from the middle.
  std::vector<std::int32_t> next_, previous_;
  int num_free_ = 0;
};

}  // namespace qwenbench::engine
