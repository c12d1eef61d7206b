// 4-bit weights with a scale (bf16) and a zero point (0..15) per group of columns: the product for few tokens, and the
// way back to bf16 for many. Values as LinearSource::dequantize defines them: bf16((u - zero) * scale).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace qwenbench::kernels {

/// One matrix [n, k] on the device, packed by w4_repack; the memory is the caller's. n and k are multiples of 16. Rows
/// are padded to 64, columns to 128. group_size: 32, 64, or a multiple of 128 (k for one scale a row).
struct W4Weights {
  const void* codes = nullptr;   // w4_codes_bytes
  const void* groups = nullptr;  // w4_groups_bytes: scales and zero points as the kernel reads them
  int n = 0, k = 0, group_size = 0;
  /// Of a fused gate and up projection: in memory 16 rows of the first half, the 16 of the second half that belong to
  /// them, and so on. Products and w4_dequantize give rows in their own order all the same.
  bool paired = false;
};

std::size_t w4_codes_bytes(int n, int k);
std::size_t w4_groups_bytes(int n, int k, int group_size);

/// Packs rows [row_offset, row_offset + n_part) of `out` (its memory is written although its pointers are const) from
/// row-major device memory: codes [n_part, k / 2], two columns a byte, the even one in the low half; scales (bf16) and
/// zeros [n_part, ceil(k / group_size)]. row_offset and n_part are multiples of 16. Throws nothing; the error is the
/// runtime's.
cudaError_t w4_repack(const std::uint8_t* codes, const std::uint16_t* scales, const std::uint8_t* zeros, int n_part,
                      int row_offset, const W4Weights& out, cudaStream_t stream);

/// Largest m of w4_linear.
constexpr int kW4MaxTokens = 96;

/// Bytes of workspace for up to m tokens. Zeroed once by the caller; the kernels leave it ready for the next call.
/// Calls that can run at the same time need one each.
std::size_t w4_workspace_bytes(int m);

/// y[m, n] = x[m, k] * W^T, 1 <= m <= kW4MaxTokens; x, y row-major and 16-byte aligned. Sums in fp32 in an order that
/// depends on the shapes and the device alone. In equal passes of at most 32 tokens: reading 4-bit weights again costs
/// less than registers for more, or than dequantizing. In passes of at most 16 the scale multiplies the fp32 sum of a
/// group's columns, in larger ones the weight, which is then rounded to bf16 as dequantize does.
/// programmatic: launched with programmatic stream serialization (sm_90): the kernel starts reading weights while its
/// predecessor still runs; x and everything else is touched only after that is complete.
cudaError_t w4_linear(const __nv_bfloat16* x, const W4Weights& w, __nv_bfloat16* y, int m, void* workspace,
                      cudaStream_t stream, bool programmatic = false);

/// out[n, k] row-major bf16, the values of dequantize.
cudaError_t w4_dequantize(const W4Weights& w, __nv_bfloat16* out, cudaStream_t stream);

}  // namespace qwenbench::kernels
