// The variants of a profile made ready: their KV scales, and Sessions over the shared weights.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calibration/kv_statistics.h"
#include "calibration/scales.h"
#include "engine/session.h"
#include "profile/profile.h"
#include "report/result.h"

namespace qwenbench::measure {

struct PreparedVariant {
  profile::Variant variant;
  std::optional<calibration::ScaleSet> scales;  // null: the cache is not FP8

  bool fp8() const { return scales.has_value(); }
};

/// A Session of the variant with the whole KV memory that `engine` allows.
std::unique_ptr<engine::Session> open_session(const std::shared_ptr<engine::Model>& model,
                                              const profile::EngineOptions& engine, const PreparedVariant& variant);

/// The engine options under which the reference is scored a second time, for the noise floor: other steps (half of
/// max_num_batched_tokens, where prompts may be chunked) and other batches (two thirds of max_num_seqs).
profile::EngineOptions noise_floor_options(profile::EngineOptions engine);

/// What the result file says of a variant's scales; diagnostics at the scale in use where there are statistics.
/// `key_bounds`: calibration::key_norm_bounds(), one a layer.
report::KvScales describe_scales(const PreparedVariant& variant, const std::vector<float>& key_bounds,
                                 const calibration::KvStatistics* statistics);

}  // namespace qwenbench::measure
