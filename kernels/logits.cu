#include <math_constants.h>

#include "kernels/launch.h"
#include "kernels/logits.h"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ TopLogit better(TopLogit a, TopLogit b) {
  if (b.id < 0) return a;
  if (a.id < 0 || b.value > a.value || (b.value == a.value && b.id < a.id)) return b;
  return a;
}

__device__ __forceinline__ TopLogit block_top(TopLogit top, TopLogit* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const TopLogit other = {__shfl_xor_sync(0xffffffffu, top.value, offset),
                            __shfl_xor_sync(0xffffffffu, top.id, offset)};
    top = better(top, other);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = top;
  __syncthreads();
  top = shared[0];
  for (int warp = 1; warp < kWarps; ++warp) top = better(top, shared[warp]);
  __syncthreads();
  return top;
}

__device__ __forceinline__ double block_sum(double value, double* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int warp = 0; warp < kWarps; ++warp) value += shared[warp];
  __syncthreads();
  return value;
}

__global__ void __launch_bounds__(kThreads)
    top_logits_kernel(const float* logits, int width, int first_id, TopLogit* out) {
  __shared__ TopLogit shared[kWarps];
  wait_for_previous();
  let_next_start();
  const int slice = (width + kTopLogitSlices - 1) / kTopLogitSlices, begin = blockIdx.x * slice;
  const int end = begin + slice < width ? begin + slice : width;
  const float* row = logits + static_cast<long long>(blockIdx.y) * width;
  TopLogit top = {-CUDART_INF_F, -1};
  for (int i = begin + threadIdx.x; i < end; i += kThreads)
    if (isfinite(row[i])) top = better(top, {row[i], first_id + i});
  top = block_top(top, shared);
  if (threadIdx.x == 0) out[blockIdx.y * kTopLogitSlices + blockIdx.x] = top;
}

__global__ void __launch_bounds__(kThreads)
    compare_logits_kernel(const float* x, const float* y, const int* targets, int width, int first_id, LogitSums* out) {
  __shared__ TopLogit shared_top[kWarps];
  __shared__ double shared_sum[kWarps];
  wait_for_previous();
  let_next_start();
  x += static_cast<long long>(blockIdx.x) * width;
  y += static_cast<long long>(blockIdx.x) * width;
  TopLogit top_x = {-CUDART_INF_F, -1}, top_y = top_x;
  int bad = 0;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    if (!isfinite(x[i]) || !isfinite(y[i])) {
      bad = 1;
      continue;
    }
    top_x = better(top_x, {x[i], i});
    top_y = better(top_y, {y[i], i});
  }
  bad = __syncthreads_or(bad);
  top_x = block_top(top_x, shared_top);
  top_y = block_top(top_y, shared_top);
  double sum_x = 0, sum_y = 0, weighted = 0;
  if (!bad) {
    for (int i = threadIdx.x; i < width; i += kThreads) {
      const float e = expf(x[i] - top_x.value);
      sum_x += e;
      sum_y += expf(y[i] - top_y.value);
      weighted += static_cast<double>(e) * (static_cast<double>(x[i]) - static_cast<double>(y[i]));
    }
  }
  sum_x = block_sum(sum_x, shared_sum);
  sum_y = block_sum(sum_y, shared_sum);
  weighted = block_sum(weighted, shared_sum);
  if (threadIdx.x != 0) return;
  LogitSums sums = {sum_x, sum_y, weighted, top_x.value, top_y.value, first_id + top_x.id, first_id + top_y.id,
                    0,     0,     0,        !bad};
  const int target = targets[blockIdx.x] - first_id;
  if (target >= 0 && target < width) {
    sums.target_x = x[target];
    sums.target_y = y[target];
    sums.has_target = 1;
  }
  out[blockIdx.x] = sums;
}

}  // namespace

cudaError_t top_logits(const float* logits, int rows, int width, int first_id, TopLogit* out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return launch(top_logits_kernel, dim3(kTopLogitSlices, rows), dim3(kThreads), 0, stream, logits, width, first_id,
                out);
}

cudaError_t compare_logits(const float* x, const float* y, const int* targets, int rows, int width, int first_id,
                           LogitSums* out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return launch(compare_logits_kernel, dim3(rows), dim3(kThreads), 0, stream, x, y, targets, width, first_id, out);
}

}  // namespace qwenbench::kernels
