#include "calibration/kept_request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/dtype.h"

namespace qwenbench::calibration {

KeptRequest::KeptRequest(const StatisticsShape& shape) : shape_(shape) {
  const auto make = [](std::vector<std::unique_ptr<Rows>>& rows, int count) {
    for (int i = 0; i < count; ++i) rows.push_back(std::make_unique<Rows>());
  };
  make(keys_, shape.layers * shape.kv_heads);
  make(values_, shape.layers * shape.kv_heads);
  make(queries_, shape.layers * shape.query_heads);
}

KeptRequest::Rows& KeptRequest::rows(Kind kind, int layer, int head) const {
  if (kind == Kind::kQuery) return *queries_[static_cast<std::size_t>(layer * shape_.query_heads + head)];
  return *(kind == Kind::kKey ? keys_ : values_)[static_cast<std::size_t>(layer * shape_.kv_heads + head)];
}

void KeptRequest::observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
                          std::span<const std::uint8_t>) {
  Rows& mine = rows(kind, layer, head);
  const std::lock_guard lock(mine.mutex);
  if (mine.owner == std::thread::id()) mine.owner = std::this_thread::get_id();
  if (mine.owner != std::this_thread::get_id()) return;
  const auto most = static_cast<std::size_t>(kMaxTokens * shape_.head_dim);
  for (int token = 0; token < tokens && mine.values.size() < most; ++token) {
    for (int i = 0; i < shape_.head_dim; ++i) mine.values.push_back(float_to_bf16(values[token * stride + i]));
  }
}

int KeptRequest::tokens() const {
  return keys_.empty() ? 0 : static_cast<int>(keys_[0]->values.size()) / shape_.head_dim;
}

std::vector<float> KeptRequest::values(Kind kind, int layer, int head) const {
  const std::vector<std::uint16_t>& stored = rows(kind, layer, head).values;
  std::vector<float> values(stored.size());
  std::transform(stored.begin(), stored.end(), values.begin(), bf16_to_float);
  return values;
}

void KeptRequest::forget() {
  for (const auto* all : {&keys_, &values_, &queries_}) {
    for (const auto& one : *all) {
      one->values.clear();
      one->owner = {};
    }
  }
}

std::vector<int> sampled_positions(int tokens) {
  const int count = std::min(16, tokens);
  std::vector<int> positions;
  for (std::int64_t i = 1; i <= count; ++i) positions.push_back(static_cast<int>(i * tokens / count) - 1);
  return positions;
}

double exponentials(const float* q, const std::vector<float>& keys, int last, int d, std::vector<double>& weights) {
  weights.resize(static_cast<std::size_t>(last) + 1);
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int token = 0; token <= last; ++token) {
    const float* k = keys.data() + static_cast<std::ptrdiff_t>(token) * d;
    double score = 0;
    for (int i = 0; i < d; ++i) score += static_cast<double>(q[i]) * k[i];
    weights[static_cast<std::size_t>(token)] = score / std::sqrt(static_cast<double>(d));
    largest = std::max(largest, weights[static_cast<std::size_t>(token)]);
  }
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  return sum;
}

}  // namespace qwenbench::calibration
