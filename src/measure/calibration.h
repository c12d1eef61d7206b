// The calibration of a profile: what `run` does for kv_scales "calibrate", and `calibrate-kv` for a scale file.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "calibration/calibrator.h"
#include "measure/load.h"
#include "profile/profile.h"
#include "workload/workload.h"

namespace qwenbench::measure {

struct CalibrationRunOptions {
  std::optional<std::filesystem::path> state;  // an interrupted calibration goes on from there
  int vllm_ranks = 1;                          // method vllm: estimators.h
  bool probabilities = false;                  // look at those of attention too, where it is in FP8
};

/// Every request of `set` through a BF16 cache, no prefix taken from the cache: every token is seen.
/// `progress` counts requests.
calibration::Calibration run_calibration(const profile::Profile& profile, const LoadedModel& loaded,
                                         const workload::Workload& set, const CalibrationRunOptions& options,
                                         Progress& progress);

/// Sentences about what a calibration set cannot say: no pictures, though the prompts or the quality set show some.
/// Throws InputError where a set that a profile names cannot be read.
std::vector<std::string> coverage_warnings(const profile::Profile& profile, const workload::Workload& set);

}  // namespace qwenbench::measure
