// Vision attention on the matrix units of sm_90; vision_attention() chooses it.
#pragma once

#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// Whether the current device can, and the code was compiled for it.
bool vision_attention_wgmma_runs();

/// As vision_attention().
cudaError_t vision_attention_wgmma(const void* qkv, void* out, int patches, int heads, int head_dim,
                                   cudaStream_t stream);

}  // namespace qwenbench::kernels
