// Scale files. Our own: {schema_version, model_fingerprint, calibration_set_sha256, method, granularity,
// layers[]{layer, k_scale, v_scale, q_scale?, prob_scale?: number or per-head list, k_amax, v_amax, samples}}.
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
/// {LAYER: scale}}}}; K and V share a scale. Where ranks differ, each holds the scales of its own heads. Keys that its
/// schema does not know it passes over: ours is kFingerprintKey.
ScaleSet parse_sglang_scales(std::string_view text, const std::string& source, const model::TextConfig& config,
                             const std::string& model_fingerprint);

/// The model_type of such a file for Qwen3-VL. SGLang's loader (QuantParamSchema.check_model_type, taken from vLLM)
/// wants what Qwen2Model.load_kv_cache_scales hands it, self.config.__class__.model_type; the dense Qwen3-VL is built
/// on that class with the whole Qwen3VLConfig, not with its text_config, whose type would be qwen3_vl_text.
inline constexpr const char* kSglangModelType = "qwen3_vl";

/// Of any known form, which is refused where it names another model, and has unchecked_model where it names none: our
/// own, SGLang's JSON, a safetensors file or a folder with names of compressed-tensors or ModelOpt. `form`, where
/// given, is set to its name.
ScaleSet read_scale_file(const std::filesystem::path& path, const model::TextConfig& config,
                         const std::string& model_fingerprint, std::string* form = nullptr);

}  // namespace qwenbench::calibration
