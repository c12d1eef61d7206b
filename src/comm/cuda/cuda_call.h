// Failed CUDA calls throw with the call and its place.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/error.h"

namespace qwenbench::comm {

inline void throw_on(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that it is not reported a second time
  throw DeviceError(std::string("CUDA: ") + cudaGetErrorString(error) + " (" + call + " at " + file + ":" +
                    std::to_string(line) + ")");
}

}  // namespace qwenbench::comm

#define QWENBENCH_COMM_CUDA(call) ::qwenbench::comm::throw_on((call), #call, __FILE__, __LINE__)
