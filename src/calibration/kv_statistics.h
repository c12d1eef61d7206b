// What K and V look like: how often every bf16 magnitude occurs, per layer, K or V, and KV head. The cache rounds to
// bf16 before it scales, so that such a histogram answers every question about a scale exactly.
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

namespace qwenbench::calibration {

/// Counts of |bf16(x)| by its 15 bits; from 0x7f80 on it is infinite or NaN.
class MagnitudeHistogram {
 public:
  static constexpr int kBins = 1 << 15;
  static constexpr int kFirstNotFinite = 0x7f80;

  MagnitudeHistogram() : counts_(kBins, 0) {}
  void add(const float* values, int count);
  void add(const MagnitudeHistogram& other);

  std::int64_t total() const { return total_; }
  std::int64_t not_finite() const;
  /// Largest finite magnitude; 0 where there is none.
  float largest() const;
  std::span<const std::int64_t> counts() const { return counts_; }

 private:
  std::vector<std::int64_t> counts_;
  std::int64_t total_ = 0;
};

/// What E4M3 with one scale does to the values of a histogram. Shares are of all values, 0..1.
struct Fp8Loss {
  double saturated = 0;          // |x / scale| above 464: cut off at 448, and not for being the nearest
  double subnormal = 0;          // stored as a subnormal: fewer than 3 bits of mantissa
  double flushed = 0;            // not 0, and stored as 0
  double signal = 0, noise = 0;  // sums of squares of the values and of the round-trip errors

  std::optional<double> snr_db() const;  // null without signal, or without noise
};
Fp8Loss fp8_loss(const MagnitudeHistogram& histogram, float scale);

class KvStatistics;

/// The same for K or V of one layer: one scale for all heads, or one for each.
Fp8Loss fp8_loss(const KvStatistics& statistics, backend::KvObserver::Kind kind, int layer,
                 std::span<const float> scales);

/// Collects histograms from every rank. A head that two ranks hold counts twice, which changes no share and no maximum.
class KvStatistics : public backend::KvObserver {
 public:
  KvStatistics(int layers, int kv_heads, int head_dim);

  void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
               std::span<const std::uint8_t> is_image) override;

  int layers() const { return layers_; }
  int kv_heads() const { return kv_heads_; }
  /// Only while nobody observes.
  const MagnitudeHistogram& of(Kind kind, int layer, int head) const { return slot(kind, layer, head).histogram; }
  /// All heads of a layer.
  MagnitudeHistogram of(Kind kind, int layer) const;

  /// The first layer in which a NaN or infinity was seen.
  std::optional<int> layer_not_finite() const;
  void forget_not_finite() { not_finite_.store(kNone); }

 private:
  static constexpr int kNone = 1 << 30;
  struct Slot {
    std::mutex mutex;
    MagnitudeHistogram histogram;
  };
  Slot& slot(Kind kind, int layer, int head) const;

  int layers_, kv_heads_, head_dim_;
  std::vector<std::unique_ptr<Slot>> slots_;  // [K or V][layer][head]
  std::atomic<int> not_finite_{kNone};        // lowest layer
};

}  // namespace qwenbench::calibration
