#include "calibration/resolve.h"

#include <fmt/format.h>

#include "base/error.h"
#include "calibration/scale_file.h"

namespace qwenbench::calibration {
namespace {

ScaleSet from_checkpoint(const model::WeightSource& weights, const profile::Variant& variant) {
  ScaleSet set;
  set.method = "checkpoint";
  set.layers = weights.kv_scales();
  if (set.layers.empty()) {
    throw InputError(fmt::format(
        "variant {}: kv_scales is \"checkpoint\", but the checkpoint has none; use \"calibrate\" or \"unit\"",
        variant.name));
  }
  check_scales(set.layers, weights.config().text, fmt::format("variant {}: the checkpoint's scales", variant.name));
  set.granularity = granularity_of(set.layers);
  return set;
}

}  // namespace

std::optional<ScaleSet> ScaleResolver::resolve(const profile::Variant& variant) {
  if (variant.kv_cache_dtype != profile::KvCacheDtype::kFp8E4M3) return std::nullopt;
  if (variant.kv_scales == "unit") {
    ScaleSet unit;
    unit.method = "unit";
    return unit;
  }
  if (variant.kv_scales == "calibrate") {
    if (!calibrated_) calibrated_ = sources_.calibrate();
    return calibrated_;
  }
  if (variant.kv_scales == "checkpoint") return from_checkpoint(sources_.weights, variant);
  return read_scale_file(sources_.resolve_path(variant.kv_scales), sources_.weights.config().text,
                         sources_.weights.fingerprint());
}

}  // namespace qwenbench::calibration
