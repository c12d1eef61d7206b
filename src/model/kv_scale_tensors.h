// KV scales in safetensors files of their own, or in a checkpoint's folder: what other programs exported.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace qwenbench::model {

struct KvScaleTensors {
  struct File {
    std::string path;
    std::map<std::string, std::string> metadata;  // __metadata__ of its header
  };
  std::vector<LayerKvScales> layers;  // one entry a layer
  std::vector<File> files;            // those that hold scales, by path
};

/// Under the names of compressed-tensors / vLLM, ModelOpt, or the old single one. `path` is one
/// file, or a folder whose safetensors files are searched. Throws InputError: none found, a layer missing, a value that
/// cannot be a scale, a name in two files.
KvScaleTensors read_kv_scale_tensors(const std::filesystem::path& path, const TextConfig& text);

}  // namespace qwenbench::model
