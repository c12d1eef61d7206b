// What GPUs this machine has. Empty where there is none, no driver, or no CUDA backend in this build.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qwenbench::backend {

struct GpuInfo {
  std::string name, uuid;
  int sm_version = 0;             // 90 for sm_90
  std::int64_t memory_bytes = 0;  // of the whole device
  std::int64_t free_bytes = 0;    // at the moment
  std::optional<double> power_limit_w, sm_clock_mhz;
};

struct GpuSystem {
  std::vector<GpuInfo> gpus;
  std::string driver_version, cuda_version, nccl_version;  // "580.159.03", "13.0", "2.28.9"; "" where unknown
  std::string topology;                                    // how the GPUs are connected; "" for none or one
  std::optional<bool> p2p;                                 // peer access between all of them; null for fewer than two
};

GpuSystem describe_gpus();

}  // namespace qwenbench::backend
