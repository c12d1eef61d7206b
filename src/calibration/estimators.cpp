#include "calibration/estimators.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "calibration/fp8_loss.h"

namespace qwenbench::calibration {
namespace {

constexpr std::array kMethods{"absmax", "percentile", "mse", "attention_mse", "bound", "vllm"};

/// Scales from twice that of absmax downwards in eighths of an octave. Another must be better by a thousandth: a scale
/// and its half often differ by nothing but the order of a sum, and scales that jump between them never settle.
float mse_scale(const MagnitudeHistogram& histogram) {
  const float absmax = histogram.largest() / kE4M3Max;
  float best = absmax;
  double least = fp8_loss(histogram, absmax).noise;
  for (int step = -8; step <= 64; ++step) {
    const float scale = absmax * std::exp2(static_cast<float>(-step) / 8);
    if (!(scale > 0)) break;
    const double noise = fp8_loss(histogram, scale).noise;
    if (noise >= least * (1 - 1e-3)) continue;
    least = noise;
    best = scale;
  }
  return best;
}

float raw_scale(const MagnitudeHistogram& histogram, Kind kind, const EstimatorOptions& options) {
  const float amax = histogram.largest();
  if (options.method == "percentile") {
    const float level = histogram.percentile(options.percentile);
    return (level > 0 ? level : amax) / kE4M3Max;
  }
  if (options.method == "mse") return amax > 0 ? mse_scale(histogram) : 0;
  if (options.method == "vllm") return amax / (kind == Kind::kValue ? 100.0f : 200.0f);
  return amax / kE4M3Max;
}

const char* name_of(Kind kind) { return kind == Kind::kKey ? "K" : kind == Kind::kValue ? "V" : "Q"; }

/// Of KV heads [first, last) together.
float group_scale(const KvStatistics& statistics, Kind kind, int layer, int first, int last,
                  const EstimatorOptions& options, std::vector<std::string>& warnings) {
  MagnitudeHistogram histogram;
  for (int head = first; head < last; ++head) histogram.add(statistics.of(kind, layer, head));
  const float scale = raw_scale(histogram, kind, options);
  if (scale > 0) return scale;
  const std::string who =
      last - first == statistics.kv_heads() ? name_of(kind) : fmt::format("{} of head {}", name_of(kind), first);
  warnings.push_back(fmt::format("layer {}: every {} that calibration saw is 0; its scale is 1", layer, who));
  return 1.0f;
}

std::vector<float> scales_of(const KvStatistics& statistics, Kind kind, int layer, const EstimatorOptions& options,
                             std::vector<std::string>& warnings) {
  const int heads = statistics.kv_heads();
  const bool rank_local = options.method == "vllm" && options.vllm_ranks > 1;
  const int together = rank_local ? std::max(1, heads / options.vllm_ranks) : options.granularity == "head" ? 1 : heads;
  std::vector<float> scales;
  for (int head = 0; head < heads; head += together) {
    const float scale = group_scale(statistics, kind, layer, head, head + together, options, warnings);
    scales.insert(scales.end(), together == heads ? 1 : static_cast<std::size_t>(together), scale);
  }
  return scales;
}

}  // namespace

void check_options(const EstimatorOptions& options) {
  if (std::find(kMethods.begin(), kMethods.end(), options.method) == kMethods.end()) {
    const std::vector<std::string> known(kMethods.begin(), kMethods.end());
    throw InputError(
        fmt::format("calibration.method \"{}\" is unknown; use {}", options.method, fmt::join(kMethods, ", ")));
  }
  if (options.granularity != "tensor" && options.granularity != "head") {
    throw InputError(fmt::format("calibration.granularity \"{}\" is unknown; use tensor or head", options.granularity));
  }
  if (options.round != "none" && options.round != "pow2") {
    throw InputError(fmt::format("calibration.round \"{}\" is unknown; use none or pow2", options.round));
  }
}

std::string method_text(const EstimatorOptions& options) {
  std::string text = options.method;
  if (options.method == "percentile") text += fmt::format(" {}", options.percentile);
  if (options.method == "vllm" && options.vllm_ranks > 1) text += fmt::format(", rank-local of {}", options.vllm_ranks);
  if (options.round == "pow2") text += ", pow2";
  return text;
}

ScaleSet estimate_scales(const KvStatistics& statistics, const EstimatorOptions& options) {
  check_options(options);
  ScaleSet set;
  set.method = method_text(options);
  for (int layer = 0; layer < statistics.layers(); ++layer) {
    model::LayerKvScales scales;
    scales.k = scales_of(statistics, Kind::kKey, layer, options, set.warnings);
    scales.v = scales_of(statistics, Kind::kValue, layer, options, set.warnings);
    if (statistics.has_queries()) {
      scales.q = scales_of(statistics, Kind::kQuery, layer, options, set.warnings);
      scales.prob = kProbScale;
    }
    set.layers.push_back(std::move(scales));
    set.amax.push_back({statistics.largest(Kind::kKey, layer), statistics.largest(Kind::kValue, layer)});
  }
  set.granularity = !set.layers.empty() && set.layers[0].k.size() > 1 ? "head" : options.granularity;
  round_scales(set, options);
  return set;
}

std::vector<float> key_norm_bounds(const model::WeightSource& weights) {
  const model::TextConfig& text = weights.config().text;
  const std::int64_t shape[] = {text.head_dim};
  std::vector<float> bounds;
  for (int layer = 0; layer < text.num_layers; ++layer) {
    float largest = 0;
    const auto name = fmt::format("model.language_model.layers.{}.self_attn.k_norm.weight", layer);
    for (const float gamma : weights.tensor(name, shape).to_floats()) largest = std::max(largest, std::abs(gamma));
    bounds.push_back(std::sqrt(static_cast<float>(text.head_dim)) * largest);
  }
  return bounds;
}

ScaleSet bound_scales(const std::vector<float>& key_bounds, const EstimatorOptions& options) {
  ScaleSet set;
  set.method = method_text(options);
  set.granularity = "tensor";
  for (const float bound : key_bounds) set.layers.push_back({{bound / kBoundFitsUnit}, {1.0f}, {}, {}});
  set.warnings.push_back("V has no bound without data: its scales are 1");
  round_scales(set, options);
  return set;
}

void round_scales(ScaleSet& set, const EstimatorOptions& options) {
  if (options.round != "pow2") return;
  const auto round_up = [](std::vector<float>& scales) {
    for (float& scale : scales) {
      int exponent = 0;
      if (std::frexp(scale, &exponent) != 0.5f) scale = std::ldexp(1.0f, exponent);
    }
  };
  for (model::LayerKvScales& layer : set.layers) {
    round_up(layer.k);
    round_up(layer.v);
    if (layer.q) round_up(*layer.q);
  }
}

}  // namespace qwenbench::calibration
