#include "backend/devices.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

namespace qwenbench::backend {
namespace {

std::string uuid_of(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

GpuInfo describe(int device) {
  GpuInfo gpu;
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return gpu;
  gpu.name = properties.name;
  gpu.uuid = uuid_of(properties.uuid);
  gpu.sm_version = properties.major * 10 + properties.minor;
  gpu.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  return gpu;
}

std::optional<bool> all_peers(int count) {
  if (count < 2) return std::nullopt;
  for (int a = 0; a < count; ++a) {
    for (int b = 0; b < count; ++b) {
      int can = 1;
      if (a != b && (cudaDeviceCanAccessPeer(&can, a, b) != cudaSuccess || can == 0)) return false;
    }
  }
  return true;
}

}  // namespace

GpuSystem describe_gpus() {
  GpuSystem system;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return system;
  }
  for (int device = 0; device < count; ++device) system.gpus.push_back(describe(device));
  int version = 0;
  if (count > 0 && cudaRuntimeGetVersion(&version) == cudaSuccess) system.cuda_version = version_text(version);
  system.p2p = all_peers(count);
  return system;
}

}  // namespace qwenbench::backend
