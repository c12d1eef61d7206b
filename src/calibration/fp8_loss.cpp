#include "calibration/fp8_loss.h"

#include <cmath>

#include "base/dtype.h"

namespace qwenbench::calibration {
namespace {

/// Halfway from 448 to what would be the next value, 480: up to here 448 is the nearest.
constexpr float kRoundsToMax = 464.0f;

}  // namespace

std::optional<double> Fp8Loss::snr_db() const {
  if (signal <= 0 || noise <= 0) return std::nullopt;
  return 10 * std::log10(signal / noise);
}

void Fp8Loss::add(const Fp8Loss& other) {
  const double all = values + other.values;
  if (all == 0) return;
  saturated = (saturated * values + other.saturated * other.values) / all;
  subnormal = (subnormal * values + other.subnormal * other.values) / all;
  flushed = (flushed * values + other.flushed * other.values) / all;
  signal += other.signal;
  noise += other.noise;
  values = all;
}

Fp8Loss fp8_loss(const MagnitudeHistogram& histogram, float scale) {
  Fp8Loss loss;
  if (histogram.total() == 0) return loss;
  histogram.for_each([&](int bin, std::int64_t found) {
    if (bin >= MagnitudeHistogram::kFirstNotFinite) return;
    const double count = static_cast<double>(found);
    const float value = MagnitudeHistogram::value(bin);
    const float scaled = value / scale;
    const std::uint8_t code = float_to_e4m3(scaled);
    if (scaled > kRoundsToMax) loss.saturated += count;
    if (code == 0 && value != 0) loss.flushed += count;
    if (code >= 1 && code <= 7) loss.subnormal += count;  // exponent bits 0
    const double error = static_cast<double>(e4m3_to_float(code) * scale) - value;
    loss.signal += count * value * value;
    loss.noise += count * error * error;
  });
  loss.values = static_cast<double>(histogram.total());
  loss.saturated /= loss.values;
  loss.flushed /= loss.values;
  loss.subnormal /= loss.values;
  return loss;
}

Fp8Loss fp8_loss(const KvStatistics& statistics, Kind kind, int layer, std::span<const float> scales,
                 std::optional<Input> input) {
  Fp8Loss all;
  for (int head = 0; head < statistics.kv_heads(); ++head) {
    for (const Input one : kInputs) {
      if (input && *input != one) continue;
      all.add(fp8_loss(statistics.of(kind, layer, head, one), scale_of(scales, head)));
    }
  }
  return all;
}

}  // namespace qwenbench::calibration
