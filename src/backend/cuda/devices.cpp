#include "backend/devices.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/nvml.h"
#include "base/cuda_devices.h"

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
  const cuda::NvmlReading reading = cuda::read_nvml(gpu.uuid);
  gpu.power_limit_w = reading.power_limit_w;
  gpu.sm_clock_mhz = reading.sm_clock_mhz;
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
  const int count = cuda_device_count();
  for (int device = 0; device < count; ++device) system.gpus.push_back(describe(device));
  int version = 0;
  if (count > 0 && cudaRuntimeGetVersion(&version) == cudaSuccess) system.cuda_version = version_text(version);
  system.driver_version = cuda::nvml_driver_version();
  system.p2p = all_peers(count);
  return system;
}

std::optional<CopyBandwidth> measure_copy_bandwidth() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  cuda::DeviceArray<std::byte> device(kBytes);
  const cuda::PinnedArray<std::byte> pinned(kBytes);
  const std::vector<std::byte> pageable(kBytes, std::byte{1});
  const auto measure = [&](const std::byte* from) {
    double best = 0;
    for (int i = 0; i < 4; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      QWENBENCH_CUDA(cudaMemcpy(device.get(), from, kBytes, cudaMemcpyHostToDevice));
      QWENBENCH_CUDA(cudaDeviceSynchronize());
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      best = std::max(best, static_cast<double>(kBytes) / elapsed.count());
    }
    return best;
  };
  return CopyBandwidth{measure(pinned.get()), measure(pageable.data())};
}

GpuActivity read_gpu_activity(std::span<const GpuInfo> gpus) {
  GpuActivity activity;
  for (const GpuInfo& gpu : gpus) {
    const cuda::NvmlReading reading = cuda::read_nvml(gpu.uuid);
    if (!reading.energy_j) return {};
    activity.energy_j = activity.energy_j.value_or(0) + *reading.energy_j;
    if (reading.throttled) activity.throttled = activity.throttled.value_or(false) || *reading.throttled;
  }
  return activity;
}

}  // namespace qwenbench::backend
