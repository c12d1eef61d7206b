// The product of a dense bf16 matrix with few tokens, at the speed at which the matrix can be read.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace qwenbench::kernels {

/// Largest m of bf16_linear.
constexpr int kBf16MaxTokens = 16;

/// Bytes of workspace for up to m tokens. Zeroed once by the caller; the kernels leave it ready for the next call.
/// Calls that can run at the same time need one each.
std::size_t bf16_linear_workspace_bytes(int m);

/// y[m, n] = x[m, k] * w[n, k]^T, all row-major, x, w and y 16-byte aligned, 1 <= m <= kBf16MaxTokens, k a multiple of
/// 8, any n. Sums in fp32, in an order that depends on the shapes and the device alone. programmatic: see w4_linear.h.
cudaError_t bf16_linear(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
                        void* workspace, cudaStream_t stream, bool programmatic = false);
/// The same with fp32 output, for logits.
cudaError_t bf16_linear(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k, void* workspace,
                        cudaStream_t stream, bool programmatic = false);

}  // namespace qwenbench::kernels
