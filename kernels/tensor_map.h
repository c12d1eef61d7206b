// Descriptions of matrices that the copy engine of sm_90 reads.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

namespace qwenbench::kernels {

/// A bf16 tensor of `rank` dimensions, the first contiguous, of which boxes are copied. A box's first dimension is 64
/// elements; its rows land as 128 swizzled bytes each. Elements beyond the tensor become zero.
struct BoxedTensor {
  const void* data;
  int rank;
  std::array<std::uint64_t, 3> size;          // elements
  std::array<std::uint64_t, 2> stride_bytes;  // of the second and third dimension
  std::array<std::uint32_t, 3> box;           // elements
};

cudaError_t make_tensor_map(const BoxedTensor& tensor, CUtensorMap& map);

}  // namespace qwenbench::kernels
