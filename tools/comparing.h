// What the subcommands that compare have in common.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "report/noise_file.h"

namespace qwenbench::tools {

inline constexpr const char* kNoiseFile = "results/noise.json";

/// "2026-11-23", UTC.
std::string today();

/// "median_ttft_ms=5%", "kld_mean=0.002" -> minimum effects by metric. Throws InputError.
std::map<std::string, double> parse_thresholds(const std::vector<std::string>& texts);

/// The file given, else kNoiseFile where it exists.
std::optional<report::NoiseFile> find_noise(const std::string& path);

}  // namespace qwenbench::tools
