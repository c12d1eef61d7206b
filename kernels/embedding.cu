#include "kernels/embedding.h"
#include "kernels/launch.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 256;

/// Row `blockIdx.x`: `zero_outside` writes zeros where the index has no row, else leaves the output alone.
__global__ void copy_rows_kernel(const __nv_bfloat16* in, const int* index, int first, int count, int width,
                                 bool zero_outside, __nv_bfloat16* out) {
  wait_for_previous();
  let_next_start();
  const int row = index[blockIdx.x] - first;
  const bool inside = row >= 0 && row < count;
  if (!inside && !zero_outside) return;
  const int vectors = width / 8;
  const uint4* from = reinterpret_cast<const uint4*>(in) + static_cast<long long>(inside ? row : 0) * vectors;
  uint4* to = reinterpret_cast<uint4*>(out) + static_cast<long long>(blockIdx.x) * vectors;
  for (int i = threadIdx.x; i < vectors; i += kThreads) to[i] = inside ? from[i] : make_uint4(0, 0, 0, 0);
}

}  // namespace

cudaError_t embed(const int* ids, int tokens, const __nv_bfloat16* table, int first_id, int count, int width,
                  __nv_bfloat16* out, cudaStream_t stream) {
  if (tokens == 0) return cudaSuccess;
  if (width % 8 != 0) return cudaErrorInvalidValue;
  return launch(copy_rows_kernel, dim3(tokens), dim3(kThreads), 0, stream, table, ids, first_id, count, width, true,
                out);
}

cudaError_t gather_rows(const __nv_bfloat16* in, const int* index, int rows, int width, __nv_bfloat16* out,
                        cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (width % 8 != 0) return cudaErrorInvalidValue;
  return launch(copy_rows_kernel, dim3(rows), dim3(kThreads), 0, stream, in, index, 0, 0x7fffffff, width, false, out);
}

}  // namespace qwenbench::kernels
