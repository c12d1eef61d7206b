// What the driver's management library says of GPUs. It comes with the driver, not with the toolkit: looked for at run
// time, and where it is missing nothing is known.
#pragma once

#include <optional>
#include <string>

namespace qwenbench::backend::cuda {

struct NvmlReading {
  std::optional<double> power_limit_w, sm_clock_mhz;
  std::optional<double> energy_j;  // since the driver was loaded
  std::optional<bool> throttled;   // by power, heat or a hardware brake, at this moment
};

/// `uuid`: "GPU-...".
NvmlReading read_nvml(const std::string& uuid);

/// "580.159.03", or "".
std::string nvml_driver_version();

}  // namespace qwenbench::backend::cuda
