#include "backend/cuda/dense_gemm.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace qwenbench::backend::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw DeviceError(fmt::format("cuBLASLt: {} ({})", cublasLtGetStatusString(status), call));
}

template <class T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}

}  // namespace

DenseGemm::DenseGemm() : workspace_(kWorkspaceBytes) { check(cublasLtCreate(&handle_), "cublasLtCreate"); }

DenseGemm::~DenseGemm() {
  for (auto& item : products_) {
    cublasLtMatrixLayoutDestroy(item.second.weight);
    cublasLtMatrixLayoutDestroy(item.second.input);
    cublasLtMatrixLayoutDestroy(item.second.output);
    cublasLtMatmulDescDestroy(item.second.operation);
  }
  if (handle_) cublasLtDestroy(handle_);
}

/// cuBLASLt is column-major: its A is w^T [k, n] transposed, its B is x^T [k, m], its D is y^T [n, m].
const DenseGemm::Product& DenseGemm::product(const Key& key) {
  const auto [found, is_new] = products_.try_emplace(key);
  Product& p = found->second;
  if (!is_new) return p;
  const auto [y_is_float, has_bias, activation, m, n, k] = key;
  check(cublasLtMatmulDescCreate(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  set(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (has_bias) {
    set(p.operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
        activation == kernels::Activation::kGeluTanh ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
    set(p.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
    set(p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, workspace_.get());  // heuristics look at its alignment
  }
  const auto out = y_is_float ? CUDA_R_32F : CUDA_R_16BF;
  check(cublasLtMatrixLayoutCreate(&p.weight, CUDA_R_16BF, k, n, k), "weight layout");
  check(cublasLtMatrixLayoutCreate(&p.input, CUDA_R_16BF, k, m, k), "input layout");
  check(cublasLtMatrixLayoutCreate(&p.output, out, n, m, n), "output layout");
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                       sizeof kWorkspaceBytes);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, p.operation, p.weight, p.input, p.output,
                                                               p.output, preference, 1, &result, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (count == 0) throw DeviceError(fmt::format("cuBLASLt has no product of {} x {} x {}", m, n, k));
  p.algorithm = result.algo;
  return p;
}

void DenseGemm::load(const __nv_bfloat16* x, const __nv_bfloat16* w, void* y, bool y_is_float, int m, int n, int k,
                     cudaStream_t stream, const Epilogue& epilogue) {
  const Key shape{y_is_float, epilogue.bias != nullptr, epilogue.activation, m, n, k};
  const cublasLtMatmulAlgo_t& algorithm = product(shape).algorithm;
  static_assert(sizeof algorithm.data == sizeof(std::array<std::uint64_t, 8>));
  std::array<std::uint64_t, 8> key;
  std::copy(std::begin(algorithm.data), std::end(algorithm.data), key.begin());
  if (loaded_.emplace(y_is_float, shape.bias, shape.activation, key).second)
    multiply(x, w, y, y_is_float, m, n, k, stream, epilogue);
}

void DenseGemm::multiply(const __nv_bfloat16* x, const __nv_bfloat16* w, void* y, bool y_is_float, int m, int n, int k,
                         cudaStream_t stream, const Epilogue& epilogue) {
  const Product& p = product({y_is_float, epilogue.bias != nullptr, epilogue.activation, m, n, k});
  if (epilogue.bias) set(p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, epilogue.bias);
  const float one = 1, zero = 0;
  check(cublasLtMatmul(handle_, p.operation, &one, w, p.weight, x, p.input, &zero, y, p.output, y, p.output,
                       &p.algorithm, workspace_.get(), workspace_.bytes(), stream),
        "cublasLtMatmul");
}

}  // namespace qwenbench::backend::cuda
