// The noise floor of a host from repeated runs of one build.
#pragma once

#include <string>
#include <vector>

#include "compare/files/run.h"
#include "report/noise_file.h"

namespace qwenbench::compare {

/// Deviation of ln(metric) between the files, pooled over the variants. Throws InputError below two files, or where
/// the runs differ in build, profile, model, requests or host: that would be no noise.
report::NoiseEntry measure_noise(const std::vector<Run>& runs, const std::vector<std::string>& metrics);

}  // namespace qwenbench::compare
