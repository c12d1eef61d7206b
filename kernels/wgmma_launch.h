// How kernels that need sm_90a are launched: one block a multiprocessor, or fewer.
#pragma once

#include "kernels/launch.h"

namespace qwenbench::kernels {

/// Whether the current device runs the kernel's machine code for sm_90a: builds for other devices hold it without a
/// body.
template <class... Params>
bool has_wgmma_code(void (*kernel)(Params...)) {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.binaryVersion == 90 &&
         attributes.ptxVersion >= 90;
}

/// A persistent kernel over `items`.
template <class... Params, class... Args>
cudaError_t launch_wgmma(void (*kernel)(Params...), int items, int threads, int shared_bytes, cudaStream_t stream,
                         Args&&... args) {
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = allow_shared_memory(kernel, shared_bytes);
  if (error != cudaSuccess) return error;
  const int blocks = items < multiprocessors ? items : multiprocessors;
  return launch(kernel, dim3(blocks), dim3(threads), shared_bytes, stream, std::forward<Args>(args)...);
}

}  // namespace qwenbench::kernels
