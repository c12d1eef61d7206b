// Device memory in tests: uploaded, poisoned, downloaded.
#pragma once

#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "base/cuda_devices.h"

namespace qwenbench::test {

/// False, and said so once, where there is no CUDA device.
inline bool has_device() {
  static const bool found = [] {
    const bool any = cuda_device_count() > 0;
    if (!any) std::puts("skipped: no CUDA device");
    return any;
  }();
  return found;
}

template <class T>
class DeviceArray {
 public:
  /// Filled with `poison` bytes (0xFF: NaN in every float format), and as much behind the end, which nobody may write.
  explicit DeviceArray(std::size_t count, int poison = 0xFF) : count_(count), poison_(poison) {
    REQUIRE(cudaMalloc(&data_, count * sizeof(T) + kGuard) == cudaSuccess);
    REQUIRE(cudaMemset(data_, poison, count * sizeof(T) + kGuard) == cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    REQUIRE(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return static_cast<T*>(data_); }

  /// The values, once the device is idle; checks what lies behind the end.
  std::vector<T> download() const {
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    std::vector<T> values(count_);
    REQUIRE(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    std::vector<std::uint8_t> guard(kGuard);
    REQUIRE(cudaMemcpy(guard.data(), static_cast<std::uint8_t*>(data_) + count_ * sizeof(T), kGuard,
                       cudaMemcpyDeviceToHost) == cudaSuccess);
    std::size_t touched = 0;
    for (const std::uint8_t byte : guard) touched += byte != static_cast<std::uint8_t>(poison_) ? 1 : 0;
    CHECK(touched == 0);
    return values;
  }

 private:
  static constexpr std::size_t kGuard = 4096;
  void* data_ = nullptr;
  std::size_t count_;
  int poison_;
};

}  // namespace qwenbench::test
