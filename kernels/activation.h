// Pointwise functions of activations.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// out [rows, width] = silu(gate) * up, in [rows, 2 width] = [gate, up]; width is a multiple of 8.
cudaError_t swiglu(const __nv_bfloat16* in, int rows, int width, __nv_bfloat16* out, cudaStream_t stream);

enum class Activation { kNone, kGeluTanh, kGeluErf };

/// x [rows, width] = activation(x + bias), in place; bias [width] or null; width is a multiple of 8.
cudaError_t bias_activation(__nv_bfloat16* x, const __nv_bfloat16* bias, Activation activation, int rows, int width,
                            cudaStream_t stream);

/// Element by element, to nearest even.
cudaError_t to_bfloat16(const float* in, long long count, __nv_bfloat16* out, cudaStream_t stream);
cudaError_t to_float(const __nv_bfloat16* in, long long count, float* out, cudaStream_t stream);

}  // namespace qwenbench::kernels
