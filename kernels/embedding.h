// Rows of one rank's share of the embedding, and copies of rows by index.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace qwenbench::kernels {

/// out [tokens, width] = table[id - first_id] where this rank holds the row (ids first_id ... first_id + count - 1),
/// else zeros. width is a multiple of 8.
cudaError_t embed(const int* ids, int tokens, const __nv_bfloat16* table, int first_id, int count, int width,
                  __nv_bfloat16* out, cudaStream_t stream);

/// out [rows, row_bytes] = in[index[row]]; a negative index leaves the row of `out` as it is. row_bytes is a multiple
/// of 16.
cudaError_t gather_rows(const void* in, const int* index, int rows, std::size_t row_bytes, void* out,
                        cudaStream_t stream);

}  // namespace qwenbench::kernels
