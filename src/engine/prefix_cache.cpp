#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/sha256.h"

namespace qwenbench::engine {
namespace {

void update_with_int(Sha256& hash, std::int64_t value) { hash.update(&value, sizeof(value)); }

BlockKey block_key(const BlockKey& before, std::span<const std::int32_t> tokens, int first_token,
                   std::span<const PictureIdentity> pictures) {
  Sha256 hash;
  hash.update(before).update(tokens.data(), tokens.size_bytes());
  const int end_token = first_token + static_cast<int>(tokens.size());
  for (const auto& picture : pictures) {
    if (picture.first >= end_token || picture.first + picture.count <= first_token) continue;
    update_with_int(hash, picture.first - first_token);
    update_with_int(hash, static_cast<std::int64_t>(picture.sha256.size()));
    hash.update(picture.sha256);
  }
  return hash.hex();
}

}  // namespace

void extend_block_keys(std::vector<BlockKey>& keys, std::span<const std::int32_t> tokens,
                       std::span<const PictureIdentity> pictures, int block_size) {
  const int full_blocks = static_cast<int>(tokens.size()) / block_size;
  for (int block = static_cast<int>(keys.size()); block < full_blocks; ++block) {
    const int first = block * block_size;
    const BlockKey before = keys.empty() ? BlockKey() : keys.back();
    keys.push_back(block_key(before, tokens.subspan(first, block_size), first, pictures));
  }
}

std::vector<std::int32_t> PrefixCache::match(std::span<const BlockKey> keys, int max_blocks) const {
  std::vector<std::int32_t> blocks;
  for (const auto& key : keys.first(std::min(keys.size(), static_cast<std::size_t>(max_blocks)))) {
    const auto found = block_of_.find(key);
    if (found == block_of_.end()) break;
    blocks.push_back(found->second);
  }
  return blocks;
}

void PrefixCache::insert(const BlockKey& key, std::int32_t block) {
  if (holds(block)) return;
  if (block_of_.emplace(key, block).second) key_of_[block] = key;
}

void PrefixCache::forget(std::int32_t block) {
  if (!holds(block)) return;
  block_of_.erase(key_of_[block]);
  key_of_[block].clear();
}

void PrefixCache::clear() {
  block_of_.clear();
  for (auto& key : key_of_) key.clear();
}

}  // namespace qwenbench::engine
