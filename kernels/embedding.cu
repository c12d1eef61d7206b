#include "kernels/embedding.h"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 256;

/// Row `blockIdx.x`, of `vectors` 16-byte vectors: `zero_outside` writes zeros where the index has no row, else leaves
/// the output alone.
__global__ void copy_rows_kernel(const uint4* in, const int* index, int first, int count, int vectors,
                                 bool zero_outside, uint4* out) {
  wait_for_previous();
  let_next_start();
  const int row = index[blockIdx.x] - first;
  const bool inside = row >= 0 && row < count;
  if (!inside && !zero_outside) return;
  const uint4* from = in + static_cast<long long>(inside ? row : 0) * vectors;
  uint4* to = out + static_cast<long long>(blockIdx.x) * vectors;
  for (int i = threadIdx.x; i < vectors; i += kThreads) to[i] = inside ? from[i] : make_uint4(0, 0, 0, 0);
}

cudaError_t copy_rows(const void* in, const int* index, int rows, int first, int count, std::size_t row_bytes,
                      bool zero_outside, void* out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (row_bytes % sizeof(uint4) != 0) return cudaErrorInvalidValue;
  return launch(copy_rows_kernel, dim3(rows), dim3(kThreads), 0, stream, static_cast<const uint4*>(in), index, first,
                count, static_cast<int>(row_bytes / sizeof(uint4)), zero_outside, static_cast<uint4*>(out));
}

}  // namespace

cudaError_t embed(const int* ids, int tokens, const __nv_bfloat16* table, int first_id, int count, int width,
                  __nv_bfloat16* out, cudaStream_t stream) {
  return copy_rows(table, ids, tokens, first_id, count, sizeof(__nv_bfloat16) * width, true, out, stream);
}

cudaError_t gather_rows(const void* in, const int* index, int rows, std::size_t row_bytes, void* out,
                        cudaStream_t stream) {
  return copy_rows(in, index, rows, 0, 0x7fffffff, row_bytes, false, out, stream);
}

}  // namespace qwenbench::kernels
