#include "calibration/kv_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/dtype.h"

namespace qwenbench::calibration {
namespace {

/// Halfway from 448 to what would be the next value, 480: up to here 448 is the nearest.
constexpr float kRoundsToMax = 464.0f;

}  // namespace

void MagnitudeHistogram::add(const float* values, int count) {
  for (int i = 0; i < count; ++i) ++counts_[float_to_bf16(values[i]) & 0x7fffu];
  total_ += count;
}

void MagnitudeHistogram::add(const MagnitudeHistogram& other) {
  for (int bin = 0; bin < kBins; ++bin) counts_[bin] += other.counts_[bin];
  total_ += other.total_;
}

std::int64_t MagnitudeHistogram::not_finite() const {
  std::int64_t sum = 0;
  for (int bin = kFirstNotFinite; bin < kBins; ++bin) sum += counts_[bin];
  return sum;
}

float MagnitudeHistogram::largest() const {
  for (int bin = kFirstNotFinite - 1; bin > 0; --bin) {
    if (counts_[bin] > 0) return bf16_to_float(static_cast<std::uint16_t>(bin));
  }
  return 0;
}

std::optional<double> Fp8Loss::snr_db() const {
  if (signal <= 0 || noise <= 0) return std::nullopt;
  return 10 * std::log10(signal / noise);
}

Fp8Loss fp8_loss(const MagnitudeHistogram& histogram, float scale) {
  Fp8Loss loss;
  if (histogram.total() == 0) return loss;
  for (int bin = 0; bin < MagnitudeHistogram::kFirstNotFinite; ++bin) {
    const double count = static_cast<double>(histogram.counts()[bin]);
    if (count == 0) continue;
    const float value = bf16_to_float(static_cast<std::uint16_t>(bin));
    const float scaled = value / scale;
    const std::uint8_t code = float_to_e4m3(scaled);
    if (scaled > kRoundsToMax) loss.saturated += count;
    if (code == 0 && value != 0) loss.flushed += count;
    if (code >= 1 && code <= 7) loss.subnormal += count;  // exponent bits 0
    const double error = static_cast<double>(e4m3_to_float(code) * scale) - value;
    loss.signal += count * value * value;
    loss.noise += count * error * error;
  }
  const double total = static_cast<double>(histogram.total());
  loss.saturated /= total;
  loss.flushed /= total;
  loss.subnormal /= total;
  return loss;
}

Fp8Loss fp8_loss(const KvStatistics& statistics, backend::KvObserver::Kind kind, int layer,
                 std::span<const float> scales) {
  Fp8Loss all;
  std::int64_t total = 0;
  for (int head = 0; head < statistics.kv_heads(); ++head) {
    const MagnitudeHistogram& histogram = statistics.of(kind, layer, head);
    const Fp8Loss one = fp8_loss(histogram, scales[scales.size() == 1 ? 0 : static_cast<std::size_t>(head)]);
    const double count = static_cast<double>(histogram.total());
    all.saturated += one.saturated * count;
    all.subnormal += one.subnormal * count;
    all.flushed += one.flushed * count;
    all.signal += one.signal;
    all.noise += one.noise;
    total += histogram.total();
  }
  const double share = total > 0 ? 1 / static_cast<double>(total) : 0;
  all.saturated *= share;
  all.subnormal *= share;
  all.flushed *= share;
  return all;
}

KvStatistics::KvStatistics(int layers, int kv_heads, int head_dim)
    : layers_(layers), kv_heads_(kv_heads), head_dim_(head_dim) {
  const auto slots =
      static_cast<std::size_t>(2) * static_cast<std::size_t>(layers) * static_cast<std::size_t>(kv_heads);
  slots_.reserve(slots);
  for (std::size_t i = 0; i < slots; ++i) slots_.push_back(std::make_unique<Slot>());
}

KvStatistics::Slot& KvStatistics::slot(Kind kind, int layer, int head) const {
  const int first = kind == Kind::kKey ? 0 : layers_;
  return *slots_[static_cast<std::size_t>((first + layer) * kv_heads_ + head)];
}

void KvStatistics::observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
                           std::span<const std::uint8_t>) {
  Slot& mine = slot(kind, layer, head);
  bool finite = true;
  {
    const std::lock_guard lock(mine.mutex);
    for (int token = 0; token < tokens; ++token) {
      const float* row = values + token * stride;
      mine.histogram.add(row, head_dim_);
      for (int i = 0; i < head_dim_; ++i) finite = finite && std::isfinite(row[i]);
    }
  }
  if (finite) return;
  int lowest = not_finite_.load();
  while (layer < lowest && !not_finite_.compare_exchange_weak(lowest, layer)) {
  }
}

MagnitudeHistogram KvStatistics::of(Kind kind, int layer) const {
  MagnitudeHistogram sum;
  for (int head = 0; head < kv_heads_; ++head) sum.add(of(kind, layer, head));
  return sum;
}

std::optional<int> KvStatistics::layer_not_finite() const {
  const int layer = not_finite_.load();
  return layer == kNone ? std::nullopt : std::optional(layer);
}

}  // namespace qwenbench::calibration
