// residual += partial (+ bias) (+ a row of features); out = norm(residual): the join of two half layers, and each norm.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// All matrices row-major bf16 [rows, width], width a multiple of 8 and at most 32768. Arithmetic in fp32; the residual
/// is rounded to bf16 before it is normalised, as the reference models do.
struct AddNorm {
  __nv_bfloat16* residual = nullptr;         // read; written where there is a partial
  const __nv_bfloat16* partial = nullptr;    // null: nothing is added
  const __nv_bfloat16* bias = nullptr;       // [width], with a partial only; null: none
  const __nv_bfloat16* features = nullptr;   // [.., width]; null: none
  const int* feature_of_row = nullptr;       // [rows], -1: none
  __nv_bfloat16* out = nullptr;              // null: no norm
  const __nv_bfloat16* weight = nullptr;     // [width]
  const __nv_bfloat16* norm_bias = nullptr;  // [width]: LayerNorm; null: RMSNorm
  float eps = 0;
  int rows = 0, width = 0;
};

cudaError_t add_norm(const AddNorm& args, cudaStream_t stream);

}  // namespace qwenbench::kernels
