// What FP8 does to the output of attention: K, V and Q of whole requests are kept, and attention is computed again with
// K or V rounded by one candidate scale after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "calibration/kv_statistics.h"
#include "calibration/scales.h"

namespace qwenbench::calibration {

/// Candidate scales are those of `absmax` times 2^(1 - i / 4), i = 0 ... 20.
inline constexpr int kAttentionCandidates = 21;

/// Sees one request at a time, of which it keeps the first kMaxTokens tokens: head_dim bf16 values a token, layer and
/// head of K, V and Q (0.7 GB for 64 layers of 8 KV and 64 query heads). Errors are summed over requests.
class AttentionError : public backend::KvObserver {
 public:
  static constexpr int kMaxTokens = 512;
  static constexpr int kQueryRows = 16;  // positions of a request whose output is compared, evenly spread

  /// `absmax` holds one scale a layer, or one a KV head.
  AttentionError(const StatisticsShape& shape, const ScaleSet& absmax);

  bool wants(Kind) const override { return true; }
  void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
               std::span<const std::uint8_t> is_image) override;

  /// After a request has run: adds its errors and forgets it.
  void finish_request(ThreadPool& pool);

  /// The candidates with the least error: K with V exact, V with K exact.
  ScaleSet best_scales() const;

 private:
  /// Values of one head, token by token: what the bf16 cache stores, or Q. Where two ranks hold one KV head, the first
  /// to come is listened to.
  struct Rows {
    std::mutex mutex;
    std::thread::id owner;
    std::vector<std::uint16_t> values;  // bf16
  };
  struct Errors {
    std::vector<double> k, v;  // by candidate
  };

  Rows& rows(Kind kind, int layer, int head) const;
  std::vector<float> floats(Kind kind, int layer, int head) const;
  void add_head(int layer, int kv_head);
  int best(int layer, int head, bool key) const;

  StatisticsShape shape_;
  ScaleSet absmax_;
  std::vector<std::unique_ptr<Rows>> keys_, values_, queries_;  // [layer][head]
  std::vector<Errors> errors_;                                  // [layer][KV head]
};

}  // namespace qwenbench::calibration
