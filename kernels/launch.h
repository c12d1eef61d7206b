// How kernels of this folder are launched: with the error checked, and where the device can (sm_90) so that a kernel
// starts while the one before it ends (programmatic dependent launch). Every kernel launched so calls
// wait_for_previous() before it touches memory that another kernel writes or reads, and every launch waits before it
// ends, so that whatever is two launches back has ended. decode_attention() alone looks earlier: at its plan,
// whose kernel lets nothing start before it has made it visible, and at what the kernel in front of it writes, where
// every word says whether it is there (raw_is_announced).
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <utility>

namespace qwenbench::kernels {

/// Does nothing where the kernel was launched without the attribute, or the device has no such thing.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel's blocks may start (they wait for the end of this one before they read). To be called after
/// wait_for_previous(): earlier, kernel after kernel would move in behind this one and take the room of its blocks
/// (measured on H200: a decode step of Qwen3-VL-32B's layers took a third longer). The linear kernels call it at once:
/// unless a caller asks for more (w4_linear.h: programmatic), they do not begin before what is in front has ended.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Of the current device, looked up once a thread and device.
inline bool can_overlap_launches() {
  thread_local int known_device = -1;
  thread_local bool can = false;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device != known_device) {
    int major = 0;
    can = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
    known_device = device;
  }
  return can;
}

/// Lets a kernel take so many bytes of dynamic shared memory on the current device, or as many as any call before has
/// asked for: ranks that share a device launch one kernel with different sizes at the same time.
inline cudaError_t allow_shared_memory(const void* kernel, int bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int> allowed;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  int& most = allowed[{device, kernel}];
  if (bytes <= most) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) most = bytes;
  return error;
}
template <class... Params>
cudaError_t allow_shared_memory(void (*kernel)(Params...), int bytes) {
  return allow_shared_memory(reinterpret_cast<const void*>(kernel), bytes);
}

/// kernel<<<grid, block, shared_bytes, stream>>>(args...), overlapping the end of the kernel before it where possible.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   Args&&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = can_overlap_launches() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...);
}

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace qwenbench::kernels
