// The first CUDA call of a process. Needs the toolkit, as cuda_check.h does.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdlib>

namespace qwenbench {

/// GPUs that CUDA can use; 0 without a driver. Must come before any other CUDA call of a program that runs several
/// ranks: it makes the driver load a device's kernels together, when the device is first used. Loaded at its first
/// launch instead, a kernel waits for those before it on its device, holding the runtime's lock; one of them may be a
/// collective that waits for another rank, whose thread waits for that lock.
inline int cuda_device_count() {
  static const int found = [] {
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();
    return 0;
  }();
  return found;
}

}  // namespace qwenbench
