#include "calibration/scales.h"

#include <fmt/format.h>

#include <cmath>

#include "base/dtype.h"
#include "base/error.h"
#include "base/sha256.h"

namespace qwenbench::calibration {
namespace {

using Kind = backend::KvObserver::Kind;

float scale_of(float amax, const char* what, int layer, std::vector<std::string>& warnings) {
  if (amax > 0) return amax / kE4M3Max;
  warnings.push_back(fmt::format("layer {}: every {} that calibration saw is 0; its scale is 1", layer, what));
  return 1.0f;
}

std::vector<float> scales_of(const KvStatistics& statistics, Kind kind, int layer, bool per_head,
                             std::vector<std::string>& warnings) {
  const char* what = kind == Kind::kKey ? "K" : "V";
  std::vector<float> scales;
  float largest = 0;
  for (int head = 0; head < statistics.kv_heads(); ++head) {
    const float amax = statistics.of(kind, layer, head).largest();
    largest = std::max(largest, amax);
    if (per_head) scales.push_back(scale_of(amax, fmt::format("{} of head {}", what, head).c_str(), layer, warnings));
  }
  if (!per_head) scales.push_back(scale_of(largest, what, layer, warnings));
  return scales;
}

void check_values(const std::vector<float>& values, const char* name, int layer, int kv_heads,
                  const std::string& where) {
  if (values.size() != 1 && values.size() != static_cast<std::size_t>(kv_heads)) {
    throw InputError(fmt::format("{}: layer {}: {} has {} values; it takes 1, or one for each of {} KV heads", where,
                                 layer, name, values.size(), kv_heads));
  }
  for (const float value : values) {
    if (!(value > 0) || !std::isfinite(value)) {
      throw InputError(
          fmt::format("{}: layer {}: {} is {}; a scale is a finite number above 0", where, layer, name, value));
    }
  }
}

}  // namespace

ScaleSet absmax_scales(const KvStatistics& statistics, const std::string& granularity) {
  if (granularity != "tensor" && granularity != "head") {
    throw InputError(fmt::format("calibration.granularity \"{}\" is unknown; use tensor or head", granularity));
  }
  ScaleSet set;
  set.method = "absmax";
  set.granularity = granularity;
  const bool per_head = granularity == "head";
  for (int layer = 0; layer < statistics.layers(); ++layer) {
    model::LayerKvScales scales;
    scales.k = scales_of(statistics, Kind::kKey, layer, per_head, set.warnings);
    scales.v = scales_of(statistics, Kind::kValue, layer, per_head, set.warnings);
    set.layers.push_back(std::move(scales));
    set.amax.push_back({statistics.of(Kind::kKey, layer).largest(), statistics.of(Kind::kValue, layer).largest()});
  }
  return set;
}

void check_scales(const std::vector<model::LayerKvScales>& layers, const model::TextConfig& config,
                  const std::string& where) {
  const auto expected = static_cast<std::size_t>(config.num_layers);
  if (layers.size() < expected) {
    throw InputError(fmt::format("{}: layer {} is missing; the model has {} layers", where, layers.size(), expected));
  }
  if (layers.size() > expected) {
    throw InputError(fmt::format("{}: layer {} is too many; the model has {} layers", where, expected, expected));
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const model::LayerKvScales& scales = layers[static_cast<std::size_t>(layer)];
    check_values(scales.k, "k_scale", layer, config.num_kv_heads, where);
    check_values(scales.v, "v_scale", layer, config.num_kv_heads, where);
    if (scales.q) check_values(*scales.q, "q_scale", layer, config.num_kv_heads, where);
    if (scales.prob) check_values({*scales.prob}, "prob_scale", layer, config.num_kv_heads, where);
  }
}

std::string scales_sha256(const std::vector<model::LayerKvScales>& layers) {
  if (layers.empty()) return "";
  Sha256 hash;
  const auto add = [&hash](const std::vector<float>& values) {
    const std::uint64_t count = values.size();
    hash.update(&count, sizeof count);
    hash.update(values.data(), values.size() * sizeof(float));
  };
  for (const model::LayerKvScales& layer : layers) {
    add(layer.k);
    add(layer.v);
    if (layer.q) add(*layer.q);
    if (layer.prob) add({*layer.prob});
  }
  return hash.hex();
}

}  // namespace qwenbench::calibration
