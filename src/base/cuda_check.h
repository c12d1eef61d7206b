// Failed CUDA calls throw with the call and its place. Needs the toolkit.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/error.h"

namespace qwenbench {

inline void throw_on_cuda_error(cudaError_t error, const char* call, const char* file, int line) {
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

}  // namespace qwenbench

#define QWENBENCH_CUDA(call) ::qwenbench::throw_on_cuda_error((call), #call, __FILE__, __LINE__)
