// What the device can read: the ceiling that decoding is measured against.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace qwenbench::kernels {

/// Bytes a second of a kernel that only reads `bytes` of device memory (random or not: nothing is computed of it), the
/// median of several launches, each timed by events.
cudaError_t measure_read_bandwidth(std::size_t bytes, double& bytes_per_second);

}  // namespace qwenbench::kernels
