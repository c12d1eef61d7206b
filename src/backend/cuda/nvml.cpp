#include "backend/cuda/nvml.h"

#include <dlfcn.h>

namespace qwenbench::backend::cuda {
namespace {

// The parts of NVML's C interface (NVIDIA's API reference) that are used here.
using Device = struct nvmlDevice_st*;
constexpr int kSuccess = 0, kClockSm = 1;
/// SW power cap, HW slowdown, SW thermal, HW thermal, HW power brake.
constexpr unsigned long long kThrottling = 0x4 | 0x8 | 0x20 | 0x40 | 0x80;

class Library {
 public:
  static const Library& instance() {
    static const Library library;
    return library;
  }

  explicit operator bool() const { return ready_; }

  int (*driver_version)(char*, unsigned) = nullptr;
  int (*handle_by_uuid)(const char*, Device*) = nullptr;
  int (*power_limit)(Device, unsigned* milliwatts) = nullptr;
  int (*clock)(Device, int, unsigned* mhz) = nullptr;
  int (*energy)(Device, unsigned long long* millijoules) = nullptr;
  int (*throttle_reasons)(Device, unsigned long long*) = nullptr;

 private:
  Library() {
    handle_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle_) return;
    int (*init)() = nullptr;
    find(init, "nvmlInit_v2");
    find(driver_version, "nvmlSystemGetDriverVersion");
    find(handle_by_uuid, "nvmlDeviceGetHandleByUUID");
    find(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(clock, "nvmlDeviceGetClockInfo");
    find(energy, "nvmlDeviceGetTotalEnergyConsumption");
    find(throttle_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    ready_ = init && driver_version && handle_by_uuid && init() == kSuccess;
  }

  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(handle_, name));
  }

  void* handle_ = nullptr;
  bool ready_ = false;
};

}  // namespace

NvmlReading read_nvml(const std::string& uuid) {
  NvmlReading reading;
  const Library& nvml = Library::instance();
  Device device = nullptr;
  if (!nvml || nvml.handle_by_uuid(uuid.c_str(), &device) != kSuccess) return reading;
  unsigned value = 0;
  if (nvml.power_limit && nvml.power_limit(device, &value) == kSuccess) reading.power_limit_w = value * 1e-3;
  if (nvml.clock && nvml.clock(device, kClockSm, &value) == kSuccess) reading.sm_clock_mhz = value;
  unsigned long long wide = 0;
  if (nvml.energy && nvml.energy(device, &wide) == kSuccess) reading.energy_j = static_cast<double>(wide) * 1e-3;
  if (nvml.throttle_reasons && nvml.throttle_reasons(device, &wide) == kSuccess)
    reading.throttled = (wide & kThrottling) != 0;
  return reading;
}

std::string nvml_driver_version() {
  const Library& nvml = Library::instance();
  char version[96] = {};
  return nvml && nvml.driver_version(version, sizeof version) == kSuccess ? version : "";
}

}  // namespace qwenbench::backend::cuda
