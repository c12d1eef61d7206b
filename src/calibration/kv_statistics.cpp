#include "calibration/kv_statistics.h"

#include <algorithm>
#include <cmath>

namespace qwenbench::calibration {

KvStatistics::KvStatistics(const StatisticsShape& shape) : shape_(shape) {
  const int kinds = shape.query_heads > 0 ? 3 : 2;
  const int slots = kinds * shape.layers * shape.kv_heads;
  slots_.reserve(static_cast<std::size_t>(slots));
  for (int i = 0; i < slots; ++i) slots_.push_back(std::make_unique<Slot>());
}

KvStatistics::Slot& KvStatistics::slot(Kind kind, int layer, int kv_head) const {
  const int first = kind == Kind::kKey ? 0 : kind == Kind::kValue ? shape_.layers : 2 * shape_.layers;
  return *slots_[static_cast<std::size_t>((first + layer) * shape_.kv_heads + kv_head)];
}

void KvStatistics::observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
                           std::span<const std::uint8_t> is_image) {
  if (!wants(kind)) return;
  Slot& mine = slot(kind, layer, kind == Kind::kQuery ? head / (shape_.query_heads / shape_.kv_heads) : head);
  std::optional<std::int64_t> bad;
  {
    const std::lock_guard lock(mine.mutex);
    for (int token = 0; token < tokens; ++token) {
      const float* row = values + token * stride;
      const bool image = !is_image.empty() && is_image[static_cast<std::size_t>(token)] != 0;
      mine.histograms[static_cast<std::size_t>(image ? Input::kImage : Input::kText)].add(row, shape_.head_dim);
      const bool finite = std::all_of(row, row + shape_.head_dim, [](float x) { return std::isfinite(x); });
      if (!finite && !bad) bad = mine.tokens + token;
    }
    mine.tokens += tokens;
  }
  if (!bad) return;
  const std::lock_guard lock(not_finite_mutex_);
  if (!not_finite_ || layer < not_finite_->layer) not_finite_ = NotFinite{layer, *bad};
}

MagnitudeHistogram KvStatistics::of(Kind kind, int layer, int head) const {
  MagnitudeHistogram sum;
  for (const Input input : kInputs) sum.add(of(kind, layer, head, input));
  return sum;
}

MagnitudeHistogram KvStatistics::of(Kind kind, int layer) const {
  MagnitudeHistogram sum;
  for (int head = 0; head < shape_.kv_heads; ++head) sum.add(of(kind, layer, head));
  return sum;
}

float KvStatistics::largest(Kind kind, int layer, int head) const {
  float found = 0;
  for (const Input input : kInputs) found = std::max(found, of(kind, layer, head, input).largest());
  return found;
}

float KvStatistics::largest(Kind kind, int layer) const {
  float found = 0;
  for (int head = 0; head < shape_.kv_heads; ++head) found = std::max(found, largest(kind, layer, head));
  return found;
}

std::optional<KvStatistics::NotFinite> KvStatistics::not_finite() const {
  const std::lock_guard lock(not_finite_mutex_);
  return not_finite_;
}

void KvStatistics::forget_not_finite() {
  const std::lock_guard lock(not_finite_mutex_);
  not_finite_.reset();
  for (const auto& slot : slots_) slot->tokens = 0;
}

}  // namespace qwenbench::calibration
