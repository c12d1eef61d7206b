#include "engine/encoder_cache.h"

#include <algorithm>
#include <utility>

namespace qwenbench::engine {

std::shared_ptr<EncodedPicture> EncoderCache::find(const std::string& sha256) {
  const auto found = known_.find(sha256);
  if (found == known_.end()) return nullptr;
  auto picture = found->second.lock();
  if (picture) keep(sha256, picture);
  return picture;
}

void EncoderCache::insert(const std::string& sha256, std::shared_ptr<EncodedPicture> picture) {
  std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
  known_[sha256] = picture;
  keep(sha256, std::move(picture));
}

void EncoderCache::clear() {
  recent_.clear();
  known_.clear();
  kept_tokens_ = 0;
}

void EncoderCache::keep(const std::string& sha256, std::shared_ptr<EncodedPicture> picture) {
  const auto same = [&](const Kept& kept) { return kept.sha256 == sha256; };
  const auto found = std::find_if(recent_.begin(), recent_.end(), same);
  if (found != recent_.end()) {
    recent_.splice(recent_.begin(), recent_, found);
    return;
  }
  kept_tokens_ += picture->tokens;
  recent_.push_front({sha256, std::move(picture)});
  while (kept_tokens_ > capacity_) {
    kept_tokens_ -= recent_.back().picture->tokens;
    recent_.pop_back();
  }
}

}  // namespace qwenbench::engine
