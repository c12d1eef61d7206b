#include "kernels/activation.h"
#include "kernels/launch.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

__device__ __forceinline__ float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case Activation::kGeluErf:
      return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    default:
      return x;
  }
}

__global__ void swiglu_kernel(const Bf16x8* in, int vectors, Bf16x8* out) {
  wait_for_previous();
  let_next_start();
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= vectors) return;
  const long long row = blockIdx.y;
  float gate[8], up[8];
  unpack(in[row * 2 * vectors + column], gate);
  unpack(in[row * 2 * vectors + vectors + column], up);
#pragma unroll
  for (int i = 0; i < 8; ++i) gate[i] = silu(gate[i]) * up[i];
  out[row * vectors + column] = pack(gate);
}

__global__ void bias_activation_kernel(Bf16x8* x, const Bf16x8* bias, Activation activation, int vectors) {
  wait_for_previous();
  let_next_start();
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= vectors) return;
  Bf16x8& cell = x[static_cast<long long>(blockIdx.y) * vectors + column];
  float value[8], add[8] = {};
  unpack(cell, value);
  if (bias) unpack(bias[column], add);
#pragma unroll
  for (int i = 0; i < 8; ++i) value[i] = activate(value[i] + add[i], activation);
  cell = pack(value);
}

template <class In, class Out>
__global__ void convert_kernel(const In* in, long long count, Out* out) {
  wait_for_previous();
  let_next_start();
  const long long stride = static_cast<long long>(gridDim.x) * kThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride)
    out[i] = static_cast<Out>(static_cast<float>(in[i]));
}

template <class In, class Out>
cudaError_t convert(const In* in, long long count, Out* out, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const long long blocks = (count + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(blocks < 4096 ? blocks : 4096));
  return launch(convert_kernel<In, Out>, grid, dim3(kThreads), 0, stream, in, count, out);
}

/// Rows beyond the grid's limit in y go in further launches.
constexpr int kMaxGridRows = 65535;

}  // namespace

cudaError_t swiglu(const __nv_bfloat16* in, int rows, int width, __nv_bfloat16* out, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const int vectors = width / 8;
  for (int row = 0; row < rows; row += kMaxGridRows) {
    const int count = rows - row < kMaxGridRows ? rows - row : kMaxGridRows;
    const cudaError_t error = launch(swiglu_kernel, dim3(ceil_div(vectors, kThreads), count), dim3(kThreads), 0, stream,
                                     reinterpret_cast<const Bf16x8*>(in) + static_cast<long long>(row) * 2 * vectors,
                                     vectors, reinterpret_cast<Bf16x8*>(out) + static_cast<long long>(row) * vectors);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t bias_activation(__nv_bfloat16* x, const __nv_bfloat16* bias, Activation activation, int rows, int width,
                            cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const int vectors = width / 8;
  for (int row = 0; row < rows; row += kMaxGridRows) {
    const int count = rows - row < kMaxGridRows ? rows - row : kMaxGridRows;
    const cudaError_t error = launch(bias_activation_kernel, dim3(ceil_div(vectors, kThreads), count), dim3(kThreads),
                                     0, stream, reinterpret_cast<Bf16x8*>(x) + static_cast<long long>(row) * vectors,
                                     reinterpret_cast<const Bf16x8*>(bias), activation, vectors);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t to_bfloat16(const float* in, long long count, __nv_bfloat16* out, cudaStream_t stream) {
  return convert(in, count, out, stream);
}

cudaError_t to_float(const __nv_bfloat16* in, long long count, float* out, cudaStream_t stream) {
  return convert(in, count, out, stream);
}

}  // namespace qwenbench::kernels
