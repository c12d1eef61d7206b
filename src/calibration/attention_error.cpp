#include "calibration/attention_error.h"

#include <algorithm>
#include <cmath>

#include "base/dtype.h"
#include "calibration/fp8_loss.h"

namespace qwenbench::calibration {
namespace {

float candidate(float absmax, int index) { return absmax * std::exp2(1 - static_cast<float>(index) / 4); }

std::vector<float> round_trip(const std::vector<float>& values, float scale) {
  std::vector<float> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(),
                 [scale](float x) { return e4m3_to_float(float_to_e4m3(x / scale)) * scale; });
  return rounded;
}

/// softmax(q K^T / sqrt(d)) over keys 0 ... last.
void weights_of(const float* q, const std::vector<float>& keys, int last, int d, std::vector<double>& weights) {
  weights.resize(static_cast<std::size_t>(last) + 1);
  double largest = -1e300, sum = 0;
  for (int token = 0; token <= last; ++token) {
    const float* k = keys.data() + static_cast<std::ptrdiff_t>(token) * d;
    double score = 0;
    for (int i = 0; i < d; ++i) score += static_cast<double>(q[i]) * k[i];
    weights[static_cast<std::size_t>(token)] = score / std::sqrt(static_cast<double>(d));
    largest = std::max(largest, weights[static_cast<std::size_t>(token)]);
  }
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (double& weight : weights) weight /= sum;
}

void output_of(const std::vector<double>& weights, const std::vector<float>& values, int d, std::vector<double>& out) {
  out.assign(static_cast<std::size_t>(d), 0);
  for (std::size_t token = 0; token < weights.size(); ++token) {
    const float* v = values.data() + static_cast<std::ptrdiff_t>(token) * d;
    for (int i = 0; i < d; ++i) out[static_cast<std::size_t>(i)] += weights[token] * v[i];
  }
}

double squared_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

}  // namespace

AttentionError::AttentionError(const StatisticsShape& shape, const ScaleSet& absmax) : shape_(shape), absmax_(absmax) {
  const auto make = [](std::vector<std::unique_ptr<Rows>>& rows, int count) {
    for (int i = 0; i < count; ++i) rows.push_back(std::make_unique<Rows>());
  };
  make(keys_, shape.layers * shape.kv_heads);
  make(values_, shape.layers * shape.kv_heads);
  make(queries_, shape.layers * shape.query_heads);
  const std::vector<double> none(kAttentionCandidates, 0.0);
  errors_.assign(keys_.size(), {none, none});
}

AttentionError::Rows& AttentionError::rows(Kind kind, int layer, int head) const {
  if (kind == Kind::kQuery) return *queries_[static_cast<std::size_t>(layer * shape_.query_heads + head)];
  return *(kind == Kind::kKey ? keys_ : values_)[static_cast<std::size_t>(layer * shape_.kv_heads + head)];
}

std::vector<float> AttentionError::floats(Kind kind, int layer, int head) const {
  const std::vector<std::uint16_t>& stored = rows(kind, layer, head).values;
  std::vector<float> values(stored.size());
  std::transform(stored.begin(), stored.end(), values.begin(), bf16_to_float);
  return values;
}

void AttentionError::observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
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

void AttentionError::finish_request(ThreadPool& pool) {
  pool.parallel_for(static_cast<std::int64_t>(errors_.size()), [this](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      add_head(static_cast<int>(i) / shape_.kv_heads, static_cast<int>(i) % shape_.kv_heads);
  });
  for (const auto* all : {&keys_, &values_, &queries_}) {
    for (const auto& one : *all) {
      one->values.clear();
      one->owner = {};
    }
  }
}

void AttentionError::add_head(int layer, int kv_head) {
  const int d = shape_.head_dim, group = shape_.query_heads / shape_.kv_heads;
  const std::vector<float> keys = floats(Kind::kKey, layer, kv_head);
  const std::vector<float> values = floats(Kind::kValue, layer, kv_head);
  const int tokens = static_cast<int>(keys.size()) / d;
  if (tokens == 0) return;
  Errors& errors = errors_[static_cast<std::size_t>(layer * shape_.kv_heads + kv_head)];
  const model::LayerKvScales& base = absmax_.layers[static_cast<std::size_t>(layer)];
  std::vector<std::vector<float>> rounded_keys, rounded_values;
  for (int i = 0; i < kAttentionCandidates; ++i) {
    rounded_keys.push_back(round_trip(keys, candidate(scale_of(base.k, kv_head), i)));
    rounded_values.push_back(round_trip(values, candidate(scale_of(base.v, kv_head), i)));
  }
  std::vector<double> weights, other_weights, exact, other;
  const int count = std::min(kQueryRows, tokens);
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const std::vector<float> queries = floats(Kind::kQuery, layer, head);
    for (int row = 0; row < count; ++row) {
      const int position = static_cast<int>((static_cast<std::int64_t>(row) + 1) * tokens / count) - 1;
      const float* q = queries.data() + static_cast<std::ptrdiff_t>(position) * d;
      weights_of(q, keys, position, d, weights);
      output_of(weights, values, d, exact);
      for (std::size_t i = 0; i < kAttentionCandidates; ++i) {
        weights_of(q, rounded_keys[i], position, d, other_weights);
        output_of(other_weights, values, d, other);
        errors.k[i] += squared_distance(exact, other);
        output_of(weights, rounded_values[i], d, other);
        errors.v[i] += squared_distance(exact, other);
      }
    }
  }
}

/// Of one head, or (head < 0) of all heads together. Absmax itself (candidate 4) stays unless another is better by a
/// thousandth.
int AttentionError::best(int layer, int head, bool key) const {
  std::vector<double> sum(kAttentionCandidates, 0.0);
  for (int h = 0; h < shape_.kv_heads; ++h) {
    if (head >= 0 && h != head) continue;
    const Errors& errors = errors_[static_cast<std::size_t>(layer * shape_.kv_heads + h)];
    for (std::size_t i = 0; i < kAttentionCandidates; ++i) sum[i] += key ? errors.k[i] : errors.v[i];
  }
  std::size_t found = 4;
  for (std::size_t i = 0; i < kAttentionCandidates; ++i) {
    if (sum[i] < sum[found] * (1 - 1e-3)) found = i;
  }
  return static_cast<int>(found);
}

ScaleSet AttentionError::best_scales() const {
  ScaleSet set = absmax_;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    model::LayerKvScales& scales = set.layers[static_cast<std::size_t>(layer)];
    const auto choose = [&](std::vector<float>& values, bool key) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        const int head = values.size() == 1 ? -1 : static_cast<int>(i);
        values[i] = candidate(values[i], best(layer, head, key));
      }
    };
    choose(scales.k, true);
    choose(scales.v, false);
  }
  return set;
}

}  // namespace qwenbench::calibration
