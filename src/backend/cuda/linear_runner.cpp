#include "backend/cuda/linear_runner.h"

#include <algorithm>
#include <utility>

#include "kernels/bf16_linear.h"
#include "kernels/fp8_block_linear.h"
#include "kernels/w4_linear.h"

namespace qwenbench::backend::cuda {

void LinearRunner::reserve(const std::vector<DeviceLinear>& linears) {
  std::size_t largest = 0;
  for (const DeviceLinear& linear : linears)
    if (linear.form != WeightForm::kDense)
      largest = std::max(largest, static_cast<std::size_t>(linear.n) * static_cast<std::size_t>(linear.k));
  dequantized_.reserve(largest);
  for (auto [workspace, bytes] :
       {std::pair{&workspace_, kernels::w4_workspace_bytes(kernels::kW4MaxTokens)},
        std::pair{&fp8_workspace_, kernels::fp8_block_workspace_bytes(kernels::kFp8MaxTokens)},
        std::pair{&bf16_workspace_, kernels::bf16_linear_workspace_bytes(kernels::kBf16MaxTokens)}}) {
    workspace->reserve(bytes);
    fill_with_zeros(*workspace);
  }
}

const __nv_bfloat16* LinearRunner::dense_weights(const DeviceLinear& linear, cudaStream_t stream) {
  switch (linear.form) {
    case WeightForm::kInt4:
      QWENBENCH_CUDA(kernels::w4_dequantize(linear.int4, dequantized_.get(), stream));
      return dequantized_.get();
    case WeightForm::kFp8Block:
      QWENBENCH_CUDA(kernels::fp8_block_dequantize(linear.fp8, dequantized_.get(), stream));
      return dequantized_.get();
    default:
      return linear.dense.get();
  }
}

namespace {

/// Few enough rows for a kernel that reads the weights in the form they are kept.
bool streams(const DeviceLinear& linear, bool y_is_float, int rows) {
  switch (linear.form) {
    case WeightForm::kInt4:
      return rows <= kernels::kW4MaxTokens && !y_is_float;
    case WeightForm::kFp8Block:
      return rows <= kernels::kFp8MaxTokens && !y_is_float;
    default:
      return rows <= kernels::kBf16MaxTokens;
  }
}

Epilogue fused_part(const Epilogue& epilogue) { return DenseGemm::fuses(epilogue) ? epilogue : Epilogue{}; }

}  // namespace

void LinearRunner::load(const DeviceLinear& linear, const __nv_bfloat16* x, void* y, bool y_is_float, int rows,
                        cudaStream_t stream, const Epilogue& epilogue) {
  if (streams(linear, y_is_float, rows)) return;
  const __nv_bfloat16* w = linear.form == WeightForm::kDense ? linear.dense.get() : dequantized_.get();
  gemm_.load(x, w, y, y_is_float, rows, linear.n, linear.k, stream, fused_part(epilogue));
}

void LinearRunner::run(const DeviceLinear& linear, const __nv_bfloat16* x, void* y, bool y_is_float, int rows,
                       cudaStream_t stream, const Epilogue& epilogue) {
  // Launched early, the products' thread blocks take the room of the small kernels before them: on H200 a decode step
  // took a quarter longer (docs/performance.md), although a chain of products alone gains.
  constexpr bool overlap = false;
  auto* out = static_cast<__nv_bfloat16*>(y);
  if (!streams(linear, y_is_float, rows)) {
    gemm_.multiply(x, dense_weights(linear, stream), y, y_is_float, rows, linear.n, linear.k, stream,
                   fused_part(epilogue));
    if (DenseGemm::fuses(epilogue)) return;
  } else if (linear.form == WeightForm::kInt4) {
    QWENBENCH_CUDA(kernels::w4_linear(x, linear.int4, out, rows, workspace_.get(), stream, overlap));
  } else if (linear.form == WeightForm::kFp8Block) {
    QWENBENCH_CUDA(kernels::fp8_block_linear(x, linear.fp8, out, rows, fp8_workspace_.get(), stream, overlap));
  } else {
    const __nv_bfloat16* w = linear.dense.get();
    void* workspace = bf16_workspace_.get();
    QWENBENCH_CUDA(y_is_float ? kernels::bf16_linear(x, w, static_cast<float*>(y), rows, linear.n, linear.k, workspace,
                                                     stream, overlap)
                              : kernels::bf16_linear(x, w, out, rows, linear.n, linear.k, workspace, stream, overlap));
  }
  if (!epilogue.empty())
    QWENBENCH_CUDA(kernels::bias_activation(out, epilogue.bias, epilogue.activation, rows, linear.n, stream));
}

}  // namespace qwenbench::backend::cuda
