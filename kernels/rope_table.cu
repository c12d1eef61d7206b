#include <cmath>

#include "kernels/launch.h"
#include "kernels/rope_table.h"

namespace qwenbench::kernels {
namespace {

constexpr int kPairs = 64;

/// Travels as a kernel argument, computed on the host so that the powers are those of the CPU backend.
struct Frequencies {
  float inverse[kPairs];
  int section_h, section_w;
};

__global__ void rope_table_kernel(const int* positions, int tokens, const __grid_constant__ Frequencies f, float* cos,
                                  float* sin) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int token = index / kPairs, j = index % kPairs;
  wait_for_previous();
  let_next_start();
  if (token >= tokens) return;
  int axis = j % 3;
  if ((axis == 1 && j >= 3 * f.section_h) || (axis == 2 && j >= 3 * f.section_w)) axis = 0;
  const float angle = __fmul_rn(static_cast<float>(positions[token * 3 + axis]), f.inverse[j]);
  sincosf(angle, sin + index, cos + index);
}

}  // namespace

cudaError_t rope_table(const int* positions, int tokens, const int (&section)[3], double theta, float* cos, float* sin,
                       cudaStream_t stream) {
  if (tokens == 0) return cudaSuccess;
  Frequencies f;
  for (int j = 0; j < kPairs; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(2 * kPairs);
    f.inverse[j] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  f.section_h = section[1];
  f.section_w = section[2];
  constexpr int kThreads = 256;
  return launch(rope_table_kernel, ceil_div(tokens * kPairs, kThreads), kThreads, 0, stream, positions, tokens, f, cos,
                sin);
}

}  // namespace qwenbench::kernels
