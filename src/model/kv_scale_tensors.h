// KV scales in safetensors files of their own, or in a checkpoint's folder: what other programs exported.
#pragma once

#include <filesystem>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace qwenbench::model {

/// One entry a layer, under the names of compressed-tensors / vLLM, ModelOpt, or the old single one. `path` is one
/// file, or a folder whose safetensors files are searched. Throws InputError: none found, a layer missing, a value that
/// cannot be a scale, a name in two files.
std::vector<LayerKvScales> read_kv_scale_tensors(const std::filesystem::path& path, const TextConfig& text);

}  // namespace qwenbench::model
