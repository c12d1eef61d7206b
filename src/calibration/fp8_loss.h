// What E4M3 with one scale does to the values of a histogram.
#pragma once

#include <optional>
#include <span>

#include "calibration/kv_statistics.h"

namespace qwenbench::calibration {

/// Shares are of all values, 0..1.
struct Fp8Loss {
  double values = 0;             // how many
  double saturated = 0;          // |x / scale| above 464: cut off at 448, and not for being the nearest
  double subnormal = 0;          // stored as a subnormal: fewer than 3 bits of mantissa
  double flushed = 0;            // not 0, and stored as 0
  double signal = 0, noise = 0;  // sums of squares of the values and of the round-trip errors

  std::optional<double> snr_db() const;  // null without signal, or without noise
  void add(const Fp8Loss& other);
};

Fp8Loss fp8_loss(const MagnitudeHistogram& histogram, float scale);

/// K or V of one layer: one scale for all heads, or one for each. Text and images, or one of them.
Fp8Loss fp8_loss(const KvStatistics& statistics, Kind kind, int layer, std::span<const float> scales,
                 std::optional<Input> input = std::nullopt);

/// `scales` of a layer as they hold for one KV head.
inline float scale_of(std::span<const float> scales, int head) {
  return scales[scales.size() == 1 ? 0 : static_cast<std::size_t>(head)];
}

}  // namespace qwenbench::calibration
