#include "kernels/add_norm.h"
#include "kernels/launch.h"
#include "kernels/norm_row.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kMaxThreads = 1024;

/// One block a row; a thread holds kVectors vectors of 8.
template <int kVectors>
__global__ void __launch_bounds__(kMaxThreads) add_norm_kernel(const __grid_constant__ AddNorm a) {
  __shared__ float shared[33];
  const long long row = blockIdx.x;
  const int vectors = a.width / 8;
  Bf16x8 weight[kVectors];
  load_norm_weight(a, weight);
  wait_for_previous();
  let_next_start();
  const int feature = feature_of(a, row);
  float values[kVectors][8];
  for_my_vectors<kVectors>(vectors, [&](int v, int column) {
    const long long at = row * vectors + column;
    const F32x8 before = load_residual(a, at);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[v][i] = before.values[i];
    if (!a.partial) return;
    add_vector(a.partial, at, values[v]);
    add_extras(a, feature, column, values[v]);
    store_residual(a, at, values[v]);
  });
  if (a.out) norm_row<kVectors>(a, values, weight, row, shared);
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
