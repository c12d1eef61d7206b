// What K and V (and Q, for attention in FP8) look like: a histogram of magnitudes per layer and KV head, of text and
// image tokens apart.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "calibration/magnitude_histogram.h"

namespace qwenbench::calibration {

using Kind = backend::KvObserver::Kind;

/// Tokens of text, and the rows that pictures take in a prompt.
enum class Input { kText, kImage };
inline constexpr std::array kInputs{Input::kText, Input::kImage};

struct StatisticsShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int query_heads = 0;  // 0: Q is not looked at. Else Q of a query head counts for the KV head that it reads
};

/// Collects histograms from every rank. A head that two ranks hold counts twice, which changes no share and no maximum.
class KvStatistics : public backend::KvObserver {
 public:
  explicit KvStatistics(const StatisticsShape& shape);
  KvStatistics(int layers, int kv_heads, int head_dim) : KvStatistics(StatisticsShape{layers, kv_heads, head_dim, 0}) {}

  bool wants(Kind kind) const override { return kind != Kind::kQuery || shape_.query_heads > 0; }
  void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
               std::span<const std::uint8_t> is_image) override;

  int layers() const { return shape_.layers; }
  int kv_heads() const { return shape_.kv_heads; }
  const StatisticsShape& shape() const { return shape_; }
  bool has_queries() const { return shape_.query_heads > 0; }

  // ---- only while nobody observes; heads are KV heads ----

  const MagnitudeHistogram& of(Kind kind, int layer, int head, Input input) const {
    return slot(kind, layer, head).histograms[static_cast<std::size_t>(input)];
  }
  MagnitudeHistogram& of(Kind kind, int layer, int head, Input input) {
    return slot(kind, layer, head).histograms[static_cast<std::size_t>(input)];
  }
  /// Text and images together.
  MagnitudeHistogram of(Kind kind, int layer, int head) const;
  /// All heads of a layer.
  MagnitudeHistogram of(Kind kind, int layer) const;
  float largest(Kind kind, int layer, int head) const;
  float largest(Kind kind, int layer) const;

  /// Where a NaN or infinity was seen first: the lowest layer, and the token, counted since the statistics began or
  /// forgot (the tokens of one request, where it runs alone).
  struct NotFinite {
    int layer = 0;
    std::int64_t token = 0;
  };
  std::optional<NotFinite> not_finite() const;
  void forget_not_finite();

 private:
  struct Slot {
    std::mutex mutex;
    std::array<MagnitudeHistogram, kInputs.size()> histograms;
    std::int64_t tokens = 0;  // since forget_not_finite()
  };
  Slot& slot(Kind kind, int layer, int kv_head) const;

  StatisticsShape shape_;
  std::vector<std::unique_ptr<Slot>> slots_;  // [K, V, Q][layer][head]
  mutable std::mutex not_finite_mutex_;
  std::optional<NotFinite> not_finite_;
};

}  // namespace qwenbench::calibration
