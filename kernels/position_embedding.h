// The vision tower's learned position table, bilinearly interpolated to a picture's grid.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// A patch's four neighbours in the table [side * side, width], and their weights.
struct TableCorners {
  int index[4];
  float weight[4];
};

/// x [patches, width] += sum of weight[i] * table[index[i]]; width is a multiple of 8. corners [patches] on the device.
cudaError_t add_position_embedding(__nv_bfloat16* x, const TableCorners* corners, const __nv_bfloat16* table,
                                   int patches, int width, cudaStream_t stream);

}  // namespace qwenbench::kernels
