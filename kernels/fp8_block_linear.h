// Weights in e4m3 with one fp32 scale per block of 128 x 128: the product for few tokens (activations stay bf16), and
// the way back to bf16 for many.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace qwenbench::kernels {

/// One matrix as it lies in the checkpoint, on the device: codes [n, k] row-major (finite e4m3 values, 16-byte
/// aligned), scales [ceil(n / 128), ceil(k / 128)]. k a multiple of 16. A fused matrix is legal where its parts begin
/// at multiples of 128 rows.
struct Fp8BlockWeights {
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;
  int n = 0, k = 0;
};

/// Largest m of fp8_block_linear.
constexpr int kFp8MaxTokens = 64;

/// Bytes of workspace for up to m tokens. Zeroed once by the caller; the kernels leave it ready for the next call.
/// Calls that can run at the same time need one each.
std::size_t fp8_block_workspace_bytes(int m);

/// y[m, n] = x[m, k] * W^T, 1 <= m <= kFp8MaxTokens, x and y row-major and 16-byte aligned. Codes are exact in bf16;
/// the scale multiplies the fp32 sum of its 128 columns. programmatic: see w4_linear.h.
cudaError_t fp8_block_linear(const __nv_bfloat16* x, const Fp8BlockWeights& w, __nv_bfloat16* y, int m, void* workspace,
                             cudaStream_t stream, bool programmatic = false);

/// out[n, k] = bf16(code * scale), row-major.
cudaError_t fp8_block_dequantize(const Fp8BlockWeights& w, __nv_bfloat16* out, cudaStream_t stream);

}  // namespace qwenbench::kernels
