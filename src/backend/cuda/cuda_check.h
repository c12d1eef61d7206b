// Failed CUDA calls throw with the call and its place.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/error.h"

namespace qwenbench::backend::cuda {

inline void throw_on(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that it is not reported a second time
  if (error == cudaErrorMemoryAllocation) {
    throw DeviceError(
        fmt::format("GPU memory is full ({} at {}:{}); lower engine.gpu_memory_utilization, "
                    "max_num_batched_tokens or max_model_len, or end other programs on the GPU",
                    call, file, line));
  }
  throw DeviceError(fmt::format("CUDA: {} ({} at {}:{})", cudaGetErrorString(error), call, file, line));
}

}  // namespace qwenbench::backend::cuda

#define QWENBENCH_CUDA(call) ::qwenbench::backend::cuda::throw_on((call), #call, __FILE__, __LINE__)
