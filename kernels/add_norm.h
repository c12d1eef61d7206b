// residual += partial (+ bias) (+ a row of features); out = norm(residual): the join of two half layers, and each norm.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// All matrices row-major [rows, width], width a multiple of 8 and at most 32768; 16-byte aligned. The residual is
/// fp32: in bf16 every half layer would round what all layers before it have added up (measured on the tiny checkpoint:
/// the most likely token of 1 position in 100 changed). What joins it and what is made of it are bf16, arithmetic is
/// fp32.
struct AddNorm {
  float* residual = nullptr;                 // read; written where there is a partial
  const __nv_bfloat16* partial = nullptr;    // null: nothing is added
  bool begins = false;                       // the residual begins with partial: what it held before is not read
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
