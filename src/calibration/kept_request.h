// K, V and Q of one request, kept so that its attention can be computed again on the host.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "calibration/kv_statistics.h"

namespace qwenbench::calibration {

/// Sees one request at a time, of which it keeps the first kMaxTokens tokens: head_dim bf16 values a token, layer and
/// head of K, V and Q (0.7 GB for 64 layers of 8 KV and 64 query heads).
class KeptRequest : public backend::KvObserver {
 public:
  static constexpr int kMaxTokens = 512;

  /// `shape.query_heads` is the model's, never 0.
  explicit KeptRequest(const StatisticsShape& shape);

  bool wants(Kind) const override { return true; }
  void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
               std::span<const std::uint8_t> is_image) override;

  // ---- only while nobody observes ----

  const StatisticsShape& shape() const { return shape_; }
  int tokens() const;
  /// [tokens, head_dim], as the bf16 cache stores it; `head` is a KV head, or a query head for Q.
  std::vector<float> values(Kind kind, int layer, int head) const;
  /// Before the next request.
  void forget();

 private:
  /// Values of one head, token by token. Where two ranks hold one KV head, the first to come is listened to.
  struct Rows {
    std::mutex mutex;
    std::thread::id owner;
    std::vector<std::uint16_t> values;  // bf16
  };
  Rows& rows(Kind kind, int layer, int head) const;

  StatisticsShape shape_;
  std::vector<std::unique_ptr<Rows>> keys_, values_, queries_;  // [layer][head]
};

/// The positions whose queries are looked at: up to 16 of a request's tokens, evenly spread, the last one among them.
std::vector<int> sampled_positions(int tokens);

/// P~ = exp(S - max S) of one query over keys 0 ... last, S = q K^T / sqrt(d): what FP8 attention converts, and 1 for
/// the largest S. `keys` is [tokens, d], `weights` becomes [last + 1]. Returns the sum, by which attention divides.
double exponentials(const float* q, const std::vector<float>& keys, int last, int d, std::vector<double>& weights);

}  // namespace qwenbench::calibration
