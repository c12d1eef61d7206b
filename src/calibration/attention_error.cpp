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
  const double sum = exponentials(q, keys, last, d, weights);
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
  const std::vector<double> none(kAttentionCandidates, 0.0);
  errors_.assign(static_cast<std::size_t>(shape.layers * shape.kv_heads), {none, none});
}

void AttentionError::add(const KeptRequest& request, ThreadPool& pool) {
  pool.parallel_for(static_cast<std::int64_t>(errors_.size()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      add_head(request, static_cast<int>(i) / shape_.kv_heads, static_cast<int>(i) % shape_.kv_heads);
  });
}

void AttentionError::add_head(const KeptRequest& request, int layer, int kv_head) {
  const int d = shape_.head_dim, group = shape_.query_heads / shape_.kv_heads;
  const std::vector<float> keys = request.values(Kind::kKey, layer, kv_head);
  const std::vector<float> values = request.values(Kind::kValue, layer, kv_head);
  Errors& errors = errors_[static_cast<std::size_t>(layer * shape_.kv_heads + kv_head)];
  const model::LayerKvScales& base = absmax_.layers[static_cast<std::size_t>(layer)];
  std::vector<std::vector<float>> rounded_keys, rounded_values;
  for (int i = 0; i < kAttentionCandidates; ++i) {
    rounded_keys.push_back(round_trip(keys, candidate(scale_of(base.k, kv_head), i)));
    rounded_values.push_back(round_trip(values, candidate(scale_of(base.v, kv_head), i)));
  }
  std::vector<double> weights, other_weights, exact, other;
  const std::vector<int> positions = sampled_positions(request.tokens());
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const std::vector<float> queries = request.values(Kind::kQuery, layer, head);
    for (const int position : positions) {
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
