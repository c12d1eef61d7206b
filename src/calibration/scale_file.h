// Our own scale files: {schema_version, model_fingerprint, calibration_set_sha256, method, granularity,
// layers[]{k_scale, v_scale, q_scale?, prob_scale?: number or per-head list, k_amax, v_amax, samples}}.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "calibration/scales.h"

namespace qwenbench::calibration {

inline constexpr int kScaleFileVersion = 1;

std::string scale_file_text(const ScaleSet& set, const std::string& model_fingerprint);
void write_scale_file(const std::filesystem::path& path, const ScaleSet& set, const std::string& model_fingerprint);

/// Throws InputError naming `source` and, where it is a layer's fault, the layer: not JSON, a newer schema_version, a
/// key that is missing or of the wrong type, scales of another model, and all that check_scales refuses.
ScaleSet parse_scale_file(std::string_view text, const std::string& source, const model::TextConfig& config,
                          const std::string& model_fingerprint);
ScaleSet read_scale_file(const std::filesystem::path& path, const model::TextConfig& config,
                         const std::string& model_fingerprint);

}  // namespace qwenbench::calibration
