// 2-D rotary position embedding of the vision tower.
#pragma once

#include <cuda_runtime.h>

namespace qwenbench::kernels {

/// Rotates the queries and keys of qkv [patches, 3 * heads * head_dim] bf16 in place: the pairs (i, i + head_dim / 2)
/// of each head by the angles whose cos and sin are [patches][head_dim / 2] fp32. head_dim is a multiple of 8.
cudaError_t vision_rope(void* qkv, const float* cos, const float* sin, int patches, int heads, int head_dim,
                        cudaStream_t stream);

}  // namespace qwenbench::kernels
