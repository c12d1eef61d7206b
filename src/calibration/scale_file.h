// Scale files. Our own: {schema_version, model_fingerprint, calibration_set_sha256, method, granularity,
// layers[]{k_scale, v_scale, q_scale?, prob_scale?: number or per-head list, k_amax, v_amax, samples}}.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "calibration/scales.h"

namespace qwenbench::calibration {

inline constexpr int kScaleFileVersion = 1;

/// `evidence`: members that are added to the file, a JSON object's text; readers pass over them.
std::string scale_file_text(const ScaleSet& set, const std::string& model_fingerprint,
                            const std::string& evidence = "{}");
void write_scale_file(const std::filesystem::path& path, const ScaleSet& set, const std::string& model_fingerprint,
                      const std::string& evidence = "{}");

/// Throws InputError naming `source` and, where it is a layer's fault, the layer: not JSON, a newer schema_version, a
/// key that is missing or of the wrong type, scales of another model, and all that check_scales refuses.
ScaleSet parse_scale_file(std::string_view text, const std::string& source, const model::TextConfig& config,
                          const std::string& model_fingerprint);

/// SGLang's --quantization-param-path: {"model_type", "kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": {RANK:
/// {LAYER: scale}}}}; K and V share a scale. Where ranks differ, each holds the scales of its own heads.
ScaleSet parse_sglang_scales(std::string_view text, const std::string& source, const model::TextConfig& config);

/// Of any known form: our own, SGLang's JSON, a safetensors file or a folder with names of compressed-tensors or
/// ModelOpt. `form`, where given, is set to its name.
ScaleSet read_scale_file(const std::filesystem::path& path, const model::TextConfig& config,
                         const std::string& model_fingerprint, std::string* form = nullptr);

}  // namespace qwenbench::calibration
