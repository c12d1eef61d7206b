// Scales in the forms that other programs load. Everything is written under a temporary name and renamed.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/scales.h"
#include "model/config.h"

namespace qwenbench::calibration {

enum class ExportFormat { kCompressedTensors, kModelOpt, kSglang };

/// "compressed-tensors" (also "vllm"), "modelopt", "sglang", separated by commas. Throws InputError for another.
std::vector<ExportFormat> parse_export_formats(std::string_view text);

struct ExportJob {
  const ScaleSet& scales;
  const model::ModelConfig& config;
  std::filesystem::path checkpoint;  // the folder that the scales belong to
  std::string model_fingerprint;     // its, by which an import knows it again
  int ranks = 1;                     // SGLang: scales are listed by rank
};

/// Where `format` goes beside the scale file `output`: STEM-compressed-tensors/, STEM-modelopt/, STEM-sglang.json.
std::filesystem::path export_path(ExportFormat format, const std::filesystem::path& output);

/// Throws InputError where the form cannot say these scales, or the loader of such a checkpoint would pass over them,
/// or something that is no earlier export stands at `path`: to be called before hours of work.
void check_export(ExportFormat format, const model::ModelConfig& config, const std::string& granularity,
                  const std::filesystem::path& path);

/// Writes it and returns what is lost by it, in sentences.
std::vector<std::string> export_scales(ExportFormat format, const ExportJob& job, const std::filesystem::path& path);

}  // namespace qwenbench::calibration
