// Full attention among the patches of one picture.
#pragma once

#include <cuda_runtime.h>

namespace qwenbench::kernels {

/// qkv bf16 [patches, 3 * heads * head_dim], after RoPE; out bf16 [patches, heads * head_dim]. head_dim is a multiple
/// of 8, at most 128. softmax(q k^T / sqrt(head_dim)) v with fp32 sums. use_wgmma: where the device has it (sm_90).
cudaError_t vision_attention(const void* qkv, void* out, int patches, int heads, int head_dim, cudaStream_t stream,
                             bool use_wgmma = true);

}  // namespace qwenbench::kernels
