// The one place that says where a variant's KV scales come from.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "calibration/scales.h"
#include "model/weights.h"
#include "profile/profile.h"

namespace qwenbench::calibration {

struct ScaleSources {
  const model::WeightSource& weights;
  /// Runs the calibration; called once at the most, whatever the number of variants that ask for it. Nothing is kept
  /// from one run of the program to the next.
  std::function<ScaleSet()> calibrate;
  /// A path as a profile names it -> the file.
  std::function<std::filesystem::path(const std::string&)> resolve_path;
};

/// kv_scales of one variant: "unit", "calibrate", "checkpoint" or a scale file's path.
class ScaleResolver {
 public:
  explicit ScaleResolver(ScaleSources sources) : sources_(std::move(sources)) {}

  /// Null where the cache is not FP8: it has no scales. Throws InputError: no scales in the checkpoint, a scale file
  /// that is refused, a calibration that failed.
  std::optional<ScaleSet> resolve(const profile::Variant& variant);

 private:
  ScaleSources sources_;
  std::optional<ScaleSet> calibrated_;
};

}  // namespace qwenbench::calibration
