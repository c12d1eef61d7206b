// Cosines and sines of the text model's rotary position embeddings.
#pragma once

#include <cuda_runtime.h>

namespace qwenbench::kernels {

/// cos and sin [tokens][64] fp32 of interleaved M-RoPE with head_dim 128: pair j takes the position of axis H where
/// j % 3 == 1 and j < 3 * section[1], of W where j % 3 == 2 and j < 3 * section[2], else of T. positions [tokens][3]
/// (T, H, W) and the results lie on the device; section is host memory. Angles are position * theta^(-2j / 128) in
/// fp32.
cudaError_t rope_table(const int* positions, int tokens, const int (&section)[3], double theta, float* cos, float* sin,
                       cudaStream_t stream);

}  // namespace qwenbench::kernels
