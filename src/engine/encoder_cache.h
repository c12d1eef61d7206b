// Visual features of pictures: each picture is encoded once, however many chunks, requests or preemptions need it while
// it is at hand.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"

namespace qwenbench::engine {

/// One picture's features, one entry a rank (each rank fills its own).
struct EncodedPicture {
  std::vector<std::shared_ptr<const backend::VisualFeatures>> ranks;
  int tokens = 0;
};

/// Knows the pictures that sequences hold, and keeps the most recently used ones beyond that, up to a number of tokens.
class EncoderCache {
 public:
  explicit EncoderCache(int capacity_tokens) : capacity_(capacity_tokens) {}

  /// Null where it must be encoded.
  std::shared_ptr<EncodedPicture> find(const std::string& sha256);
  void insert(const std::string& sha256, std::shared_ptr<EncodedPicture> picture);
  /// Forgets everything; sequences keep what they hold.
  void clear();

  int kept_tokens() const { return kept_tokens_; }

 private:
  struct Kept {
    std::string sha256;
    std::shared_ptr<EncodedPicture> picture;
  };
  void keep(const std::string& sha256, std::shared_ptr<EncodedPicture> picture);

  int capacity_;
  int kept_tokens_ = 0;
  std::list<Kept> recent_;  // the most recently used first
  std::unordered_map<std::string, std::weak_ptr<EncodedPicture>> known_;
};

}  // namespace qwenbench::engine
