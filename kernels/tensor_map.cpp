#include "kernels/tensor_map.h"

namespace qwenbench::kernels {
namespace {

/// The driver's function, asked for at run time: programs then need not link with the driver.
decltype(&cuTensorMapEncodeTiled) find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  constexpr unsigned kVersion = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion, cudaEnableDefault, &result) !=
          cudaSuccess ||
      result != cudaDriverEntryPointSuccess)
    return nullptr;
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

}  // namespace

cudaError_t make_tensor_map(const BoxedTensor& tensor, CUtensorMap& map) {
  static const auto encode = find_encoder();
  if (!encode) return cudaErrorNotSupported;
  const std::array<std::uint32_t, 3> every = {1, 1, 1};
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(tensor.rank),
                                 const_cast<void*>(tensor.data), tensor.size.data(), tensor.stride_bytes.data(),
                                 tensor.box.data(), every.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace qwenbench::kernels
