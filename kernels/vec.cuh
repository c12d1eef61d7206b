// Eight values as one vector: bf16 in one 16-byte access, fp32 in two; and sums over a block.
#pragma once

#include <cuda_bf16.h>

namespace qwenbench::kernels {

struct alignas(16) Bf16x8 {
  __nv_bfloat162 pairs[4];
};

struct alignas(16) F32x8 {
  float values[8];
};

__device__ __forceinline__ void unpack(const Bf16x8& packed, float* out) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(packed.pairs[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ Bf16x8 pack(const float* in) {
  Bf16x8 packed;
#pragma unroll
  for (int i = 0; i < 4; ++i) packed.pairs[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
  return packed;
}

/// The sum over all threads of the block, on every thread. `shared` holds 33 floats; the next sum may use it at once:
/// it writes a word only behind a barrier that all readers of that word have reached.
__device__ __forceinline__ float block_sum(float value, float* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  const int warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  if (threadIdx.x % 32 == 0) shared[warp] = value;
  __syncthreads();
  if (warp == 0) {
    float sum = threadIdx.x < warps ? shared[threadIdx.x] : 0.0f;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x == 0) shared[32] = sum;
  }
  __syncthreads();
  return shared[32];
}

}  // namespace qwenbench::kernels
