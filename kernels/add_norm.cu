#include "kernels/add_norm.h"
#include "kernels/launch.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kMaxThreads = 1024;

/// One block a row; a thread holds kVectors vectors of 8.
template <int kVectors>
__global__ void __launch_bounds__(kMaxThreads) add_norm_kernel(AddNorm a) {
  __shared__ float shared[33];
  const int vectors = a.width / 8;
  const long long base = static_cast<long long>(blockIdx.x) * vectors;
  wait_for_previous();
  let_next_start();
  const int feature = a.features && a.feature_of_row ? a.feature_of_row[blockIdx.x] : -1;
  float values[kVectors][8];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = threadIdx.x + v * blockDim.x;
    if (column >= vectors) continue;
    unpack(reinterpret_cast<const Bf16x8*>(a.residual)[base + column], values[v]);
    if (a.partial) {
      float more[8];
      unpack(reinterpret_cast<const Bf16x8*>(a.partial)[base + column], more);
      for (int i = 0; i < 8; ++i) values[v][i] += more[i];
      if (a.bias) {
        unpack(reinterpret_cast<const Bf16x8*>(a.bias)[column], more);
        for (int i = 0; i < 8; ++i) values[v][i] += more[i];
      }
      if (feature >= 0) {
        unpack(reinterpret_cast<const Bf16x8*>(a.features)[static_cast<long long>(feature) * vectors + column], more);
        for (int i = 0; i < 8; ++i) values[v][i] += more[i];
      }
      const Bf16x8 rounded = pack(values[v]);
      reinterpret_cast<Bf16x8*>(a.residual)[base + column] = rounded;
      unpack(rounded, values[v]);
    }
    for (int i = 0; i < 8; ++i) sum += a.norm_bias ? values[v][i] : values[v][i] * values[v][i];
  }
  if (!a.out) return;
  float mean = 0;
  if (a.norm_bias) {
    mean = block_sum(sum, shared) / a.width;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (static_cast<int>(threadIdx.x + v * blockDim.x) >= vectors) continue;
      for (int i = 0; i < 8; ++i) sum += (values[v][i] - mean) * (values[v][i] - mean);
    }
  }
  const float scale = rsqrtf(block_sum(sum, shared) / a.width + a.eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = threadIdx.x + v * blockDim.x;
    if (column >= vectors) continue;
    float weight[8], normed[8];
    unpack(reinterpret_cast<const Bf16x8*>(a.weight)[column], weight);
    for (int i = 0; i < 8; ++i) normed[i] = (values[v][i] - mean) * scale * weight[i];
    if (a.norm_bias) {
      unpack(reinterpret_cast<const Bf16x8*>(a.norm_bias)[column], weight);
      for (int i = 0; i < 8; ++i) normed[i] += weight[i];
    }
    reinterpret_cast<Bf16x8*>(a.out)[base + column] = pack(normed);
  }
}

}  // namespace

cudaError_t add_norm(const AddNorm& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.width % 8 != 0 || args.width > 4 * 8 * kMaxThreads) return cudaErrorInvalidValue;
  const int vectors = args.width / 8;
  const int per_thread = ceil_div(vectors, kMaxThreads);
  const int threads = ceil_div(ceil_div(vectors, per_thread), 32) * 32;
  const auto kernel = per_thread == 1 ? add_norm_kernel<1> : per_thread == 2 ? add_norm_kernel<2> : add_norm_kernel<4>;
  return launch(kernel, dim3(args.rows), dim3(threads), 0, stream, args);
}

}  // namespace qwenbench::kernels
