// Products with a DeviceLinear: which kernel for how many rows.
#pragma once

#include "backend/cuda/dense_gemm.h"
#include "backend/cuda/device_linear.h"

namespace qwenbench::backend::cuda {

class LinearRunner {
 public:
  /// Workspaces for the largest of `linears`, taken once.
  void reserve(const std::vector<DeviceLinear>& linears);

  /// y [rows, n] bf16 (or fp32 where y_is_float, without an epilogue) = epilogue(x [rows, k] * W^T). With W in a
  /// quantized form and many rows it is dequantized first.
  void run(const DeviceLinear& linear, const __nv_bfloat16* x, void* y, bool y_is_float, int rows, cudaStream_t stream,
           const Epilogue& epilogue = {});

  /// Before such a run(): where cuBLASLt would load a kernel in it, it does so now. y becomes undefined.
  void load(const DeviceLinear& linear, const __nv_bfloat16* x, void* y, bool y_is_float, int rows,
            cudaStream_t stream, const Epilogue& epilogue = {});

 private:
  const __nv_bfloat16* dense_weights(const DeviceLinear& linear, cudaStream_t stream);

  DenseGemm gemm_;
  DeviceArray<std::byte> workspace_, fp8_workspace_, bf16_workspace_;
  DeviceArray<__nv_bfloat16> dequantized_;
};

}  // namespace qwenbench::backend::cuda
