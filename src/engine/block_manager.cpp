#include "engine/block_manager.h"

#include <stdexcept>

namespace qwenbench::engine {

BlockManager::BlockManager(int num_blocks, PrefixCache* cache)
    : cache_(cache), holders_(num_blocks), next_(num_blocks + 1), previous_(num_blocks + 1) {
  next_[num_blocks] = previous_[num_blocks] = num_blocks;
  for (std::int32_t block = 0; block < num_blocks; ++block) link(block, previous_[num_blocks]);
}

void BlockManager::link(std::int32_t block, std::int32_t after) {
  previous_[block] = after;
  next_[block] = next_[after];
  previous_[next_[after]] = block;
  next_[after] = block;
  ++num_free_;
}

void BlockManager::unlink(std::int32_t block) {
  next_[previous_[block]] = next_[block];
  previous_[next_[block]] = previous_[block];
  --num_free_;
}

std::int32_t BlockManager::allocate() {
  if (num_free_ == 0) throw std::logic_error("allocate: no KV block is free");
  const std::int32_t block = next_[num_blocks()];
  unlink(block);
  if (cache_) cache_->forget(block);
  holders_[block] = 1;
  return block;
}

void BlockManager::retain(std::int32_t block) {
  if (holders_[block]++ == 0) unlink(block);
}

void BlockManager::release(std::int32_t block) {
  if (holders_[block] <= 0) throw std::logic_error("release: nobody holds this KV block");
  if (--holders_[block] > 0) return;
  const bool worth_keeping = cache_ && cache_->holds(block);
  link(block, worth_keeping ? previous_[num_blocks()] : num_blocks());
}

}  // namespace qwenbench::engine
