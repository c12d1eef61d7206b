#include "calibration/scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/dtype.h"
#include "base/error.h"
#include "base/sha256.h"

namespace qwenbench::calibration {
namespace {

void check_values(const std::vector<float>& values, const char* name, int layer, int kv_heads,
                  const std::string& where) {
  if (values.size() != 1 && values.size() != static_cast<std::size_t>(kv_heads)) {
    throw InputError(fmt::format("{}: layer {}: {} has {} values; it takes 1, or one for each of {} KV heads", where,
                                 layer, name, values.size(), kv_heads));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] > 0 && std::isfinite(values[i])) continue;
    const std::string head = values.size() > 1 ? fmt::format(" of head {}", i) : "";
    throw InputError(fmt::format("{}: layer {}: {}{} is {}; a scale is a finite number above 0", where, layer, name,
                                 head, values[i]));
  }
}

}  // namespace

void check_scales(const std::vector<model::LayerKvScales>& layers, const model::TextConfig& config,
                  const std::string& where) {
  const auto expected = static_cast<std::size_t>(config.num_layers);
  if (layers.size() != expected) {
    throw InputError(fmt::format("{}: holds scales of {} layers; the model has {}", where, layers.size(), expected));
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const model::LayerKvScales& scales = layers[static_cast<std::size_t>(layer)];
    check_values(scales.k, "k_scale", layer, config.num_kv_heads, where);
    check_values(scales.v, "v_scale", layer, config.num_kv_heads, where);
    if (scales.q) {  // also one a query head, as checkpoints may have it
      const bool queries = scales.q->size() == static_cast<std::size_t>(config.num_heads);
      check_values(*scales.q, "q_scale", layer, queries ? config.num_heads : config.num_kv_heads, where);
    }
    if (scales.prob) check_values({*scales.prob}, "prob_scale", layer, config.num_kv_heads, where);
  }
}

void check_fingerprint(ScaleSet& set, const std::optional<std::string>& found, const std::string& model_fingerprint,
                       const std::string& where) {
  if (!found) {
    set.unchecked_model = fmt::format(
        "{}: names no {}: that its scales belong to this model, and not to another of the same shape, was not checked",
        where, kFingerprintKey);
  } else if (*found != model_fingerprint) {
    throw InputError(
        fmt::format("{}: its scales are of another model ({:.12}... instead of {:.12}...); calibrate this one", where,
                    one_line(*found, 80), model_fingerprint));
  }
}

std::string granularity_of(const std::vector<model::LayerKvScales>& layers) {
  const bool per_head = std::any_of(layers.begin(), layers.end(), [](const model::LayerKvScales& layer) {
    return layer.k.size() > 1 || layer.v.size() > 1;
  });
  return per_head ? "head" : "tensor";
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
