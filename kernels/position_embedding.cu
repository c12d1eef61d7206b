#include "kernels/launch.h"
#include "kernels/position_embedding.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 128;

__global__ void add_position_embedding_kernel(Bf16x8* x, const TableCorners* corners, const Bf16x8* table,
                                              int vectors) {
  wait_for_previous();
  let_next_start();
  const TableCorners corner = corners[blockIdx.x];
  for (int column = threadIdx.x; column < vectors; column += kThreads) {
    Bf16x8& cell = x[static_cast<long long>(blockIdx.x) * vectors + column];
    float sum[8] = {}, value[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      unpack(table[static_cast<long long>(corner.index[i]) * vectors + column], value);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[j] += value[j] * corner.weight[i];
    }
    unpack(cell, value);
#pragma unroll
    for (int j = 0; j < 8; ++j) value[j] += sum[j];
    cell = pack(value);
  }
}

}  // namespace

cudaError_t add_position_embedding(__nv_bfloat16* x, const TableCorners* corners, const __nv_bfloat16* table,
                                   int patches, int width, cudaStream_t stream) {
  if (patches == 0) return cudaSuccess;
  if (width % 8 != 0) return cudaErrorInvalidValue;
  return launch(add_position_embedding_kernel, dim3(patches), dim3(kThreads), 0, stream, reinterpret_cast<Bf16x8*>(x),
                corners, reinterpret_cast<const Bf16x8*>(table), width / 8);
}

}  // namespace qwenbench::kernels
