// KV scales as one set: what they are, where they come from, and whether they can be scales at all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace qwenbench::calibration {

/// Of attention in FP8: the largest probability that it converts is exp(0) = 1, always, so that nothing is calibrated.
/// 1 becomes 256, and what is flushed to 0 lies below 2^-18.
inline constexpr float kProbScale = 0x1p-8f;

struct LayerAmax {
  float k = 0, v = 0;
};

/// One set of scales with its origin. `layers` is empty for method "unit": every scale is 1.
struct ScaleSet {
  std::string method;                  // unit | absmax | ... (estimators.h) | checkpoint; of a file, what it says
  std::string granularity;             // tensor | head; "" for unit
  std::string calibration_set_sha256;  // "" where nothing was calibrated, or it is not known
  std::vector<model::LayerKvScales> layers;
  std::vector<LayerAmax> amax;        // empty where not known
  std::int64_t samples = 0;           // tokens of the calibration set; 0 where not known
  std::vector<std::string> warnings;  // sentences
  std::string unchecked_model;        // a sentence, where nothing told whether these are scales of this model
};

/// Throws InputError, beginning with `where` and naming the layer: neither one value nor one per KV head; zero,
/// negative, NaN or infinite. Also where there is not one entry a layer; who reads layers by number names the missing.
void check_scales(const std::vector<model::LayerKvScales>& layers, const model::TextConfig& config,
                  const std::string& where);

/// What scale files of every form, safetensors' metadata too, call the fingerprint of the model that they belong to.
inline constexpr const char* kFingerprintKey = "model_fingerprint";

/// `found`: the fingerprint that a file names. Throws InputError, beginning with `where`, unless it is the model's;
/// null where the file names none, and `set` then says that nothing could be checked.
void check_fingerprint(ScaleSet& set, const std::optional<std::string>& found, const std::string& model_fingerprint,
                       const std::string& where);

/// "head" where any layer has a scale for each, else "tensor".
std::string granularity_of(const std::vector<model::LayerKvScales>& layers);

/// SHA-256 of the values (layer by layer, K then V, as fp32); "" where there are none.
std::string scales_sha256(const std::vector<model::LayerKvScales>& layers);

}  // namespace qwenbench::calibration
