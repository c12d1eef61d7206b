// Products of dense bf16 matrices through cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>

#include "backend/cuda/device_memory.h"
#include "kernels/activation.h"

namespace qwenbench::backend::cuda {

/// What becomes of a product before it is stored: activation(product + bias).
struct Epilogue {
  const __nv_bfloat16* bias = nullptr;  // [n]
  kernels::Activation activation = kernels::Activation::kNone;

  bool empty() const { return !bias && activation == kernels::Activation::kNone; }
};

class DenseGemm {
 public:
  DenseGemm();
  ~DenseGemm();
  DenseGemm(const DenseGemm&) = delete;
  DenseGemm& operator=(const DenseGemm&) = delete;

  /// y [m, n] = x [m, k] * w [n, k]^T; all row-major and dense, fp32 accumulation. y is bf16 or, where y_is_float,
  /// fp32.
  void multiply(const __nv_bfloat16* x, const __nv_bfloat16* w, void* y, bool y_is_float, int m, int n, int k,
                cudaStream_t stream, const Epilogue& epilogue = {});

  /// Whether cuBLASLt has it, for bf16 results.
  static bool fuses(const Epilogue& epilogue) {
    return epilogue.empty() || (epilogue.bias && epilogue.activation != kernels::Activation::kGeluErf);
  }

  /// Runs the product once if its kernel may not be loaded yet: cuBLASLt loads a kernel when it is first wanted, for
  /// which the driver may wait for the device. y becomes undefined.
  void load(const __nv_bfloat16* x, const __nv_bfloat16* w, void* y, bool y_is_float, int m, int n, int k,
            cudaStream_t stream, const Epilogue& epilogue = {});

 private:
  struct Key {
    bool y_is_float, bias;
    kernels::Activation activation;
    int m, n, k;
    auto operator<=>(const Key&) const = default;
  };
  struct Product {  // what cuBLASLt needs to know of one shape
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, input = nullptr, output = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  const Product& product(const Key& key);

  cublasLtHandle_t handle_ = nullptr;
  DeviceArray<std::byte> workspace_;
  std::map<Key, Product> products_;
  std::set<std::tuple<bool, bool, kernels::Activation, std::array<std::uint64_t, 8>>> loaded_;  // what load() has run
};

}  // namespace qwenbench::backend::cuda
