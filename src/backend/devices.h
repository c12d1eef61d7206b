// What GPUs this machine has. Empty where there is none, no driver, or no CUDA backend in this build.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qwenbench::backend {

struct GpuInfo {
  std::string name, uuid;
  int sm_version = 0;             // 90 for sm_90
  std::int64_t memory_bytes = 0;  // of the whole device
  std::optional<double> power_limit_w, sm_clock_mhz;
};

struct GpuSystem {
  std::vector<GpuInfo> gpus;
  std::string driver_version, cuda_version, nccl_version;  // "580.159.03", "13.0", "2.28.9"; "" where unknown
  std::string topology;                                    // how the GPUs are connected; "" for none or one
  std::optional<bool> p2p;                                 // peer access between all of them; null for fewer than two
};

GpuSystem describe_gpus();

/// From the host to the current device, bytes a second; null where there is no GPU.
struct CopyBandwidth {
  double pinned = 0, pageable = 0;
};
std::optional<CopyBandwidth> measure_copy_bandwidth();

/// At this moment, of all `gpus` together; empty where the driver does not say.
struct GpuActivity {
  std::optional<double> energy_j = std::nullopt;  // since the driver was loaded: differences mean something
  std::optional<bool> throttled = std::nullopt;   // any of them, by power, heat or a hardware brake
};
GpuActivity read_gpu_activity(std::span<const GpuInfo> gpus);

}  // namespace qwenbench::backend
