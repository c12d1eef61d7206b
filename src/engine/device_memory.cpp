// The devices of a memory plan: assumed, or those that are here.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <regex>

#include "backend/devices.h"
#include "base/error.h"
#include "engine/memory_plan.h"

namespace qwenbench::engine {

DeviceMemory parse_devices(const std::string& text) {
  static const std::regex form(R"((?:([1-9]\d?)x)?(\d{1,6}(?:\.\d{1,3})?)(GiB|MiB),sm_(\d{2,3})a?)");
  std::smatch match;
  if (text.size() > 64 || !std::regex_match(text, match, form) || std::stod(match[2]) <= 0) {
    throw InputError(
        fmt::format("--assume-devices {}: expected [COUNTx]MEMORY,sm_CC, as in 2x24GiB,sm_89", one_line(text, 64)));
  }
  DeviceMemory devices;
  devices.is_gpu = true;
  devices.count = match[1].matched ? std::stoi(match[1]) : 1;
  devices.bytes = static_cast<std::int64_t>(std::stod(match[2]) * (match[3] == "GiB" ? 0x1p30 : 0x1p20));
  devices.sm_version = std::stoi(match[4]);
  devices.name =
      fmt::format("{} x {} {}, sm_{} (assumed)", devices.count, match[2].str(), match[3].str(), devices.sm_version);
  return devices;
}

namespace {

constexpr int kOldestSm = 80;  // bf16 arithmetic

DeviceMemory of_gpus(const std::vector<backend::GpuInfo>& gpus) {
  DeviceMemory devices;
  devices.is_gpu = true;
  devices.count = static_cast<int>(gpus.size());
  devices.bytes = gpus.front().memory_bytes;
  devices.sm_version = gpus.front().sm_version;
  for (const auto& gpu : gpus) {
    devices.bytes = std::min(devices.bytes, gpu.memory_bytes);
    devices.sm_version = std::min(devices.sm_version, gpu.sm_version);
  }
  if (devices.sm_version < kOldestSm)
    throw DeviceError(fmt::format("{} is sm_{}: sm_80 or newer is needed; set engine.device to \"cpu\"",
                                  gpus.front().name, devices.sm_version));
  devices.name = fmt::format("{} x {}, {:.1f} GiB each, sm_{}", devices.count, gpus.front().name,
                             static_cast<double>(devices.bytes) / 0x1p30, devices.sm_version);
  return devices;
}

}  // namespace

DeviceMemory available_devices(const profile::EngineOptions& options) {
  if (options.device != profile::Device::kCpu) {
    const auto gpus = backend::describe_gpus().gpus;
    if (!gpus.empty()) return of_gpus(gpus);
    if (options.device == profile::Device::kCuda) {
      throw DeviceError(
          "engine.device is cuda, and no GPU answers to this build (is it built with --preset cuda, does nvidia-smi "
          "run?); set engine.device to \"cpu\", or plan with --dry-run --assume-devices 2x24GiB,sm_89");
    }
  }
  DeviceMemory devices;
  devices.bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  devices.name = fmt::format("CPU, {:.2f} GiB of memory", static_cast<double>(devices.bytes) / 0x1p30);
  return devices;
}

}  // namespace qwenbench::engine
