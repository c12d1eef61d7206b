#include "kernels/launch.h"
#include "kernels/qk_norm_rope.cuh"

namespace qwenbench::kernels {
namespace {

using namespace device;

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) qk_norm_rope_append_kernel(const __grid_constant__ QkNormRopeAppend op) {
  const int all_heads = op.heads + 2 * op.cache.kv_heads;
  const std::int64_t index = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanesPerHead;
  const bool inside = index < static_cast<std::int64_t>(op.tokens) * all_heads;
  const std::int64_t at = inside ? index : 0;  // lanes outside take part in the shuffles
  const int token = static_cast<int>(at / all_heads), head = static_cast<int>(at % all_heads);
  const int lane = static_cast<int>(threadIdx.x) % kLanesPerHead;

  wait_for_previous();
  let_next_start();
  HeadTurn turn;
  turn.load(op, token, head < op.heads, lane);
  HeadRow x;
  x.load(op, token, head, lane);
  const Vector8 row = x.kept(op, turn, head);
  if (!inside) return;
  if (head < op.heads) {
    store8(static_cast<__nv_bfloat16*>(op.q_out) + (static_cast<std::int64_t>(token) * op.heads + head) * kHeadDim,
           lane, row);
    return;
  }
  const bool is_value = head >= op.heads + op.cache.kv_heads;
  const int kv_head = head - op.heads - (is_value ? op.cache.kv_heads : 0);
  const KvLayer& cache = op.cache;
  const float scale = cache.dtype == KvDtype::kBFloat16 ? 1.0f : (is_value ? cache.v_scale : cache.k_scale)[kv_head];
  append(cache, is_value ? cache.v : cache.k, kv_head, op.slot[token], StoredRow(cache.dtype, row, scale), lane);
  auto* copy = static_cast<__nv_bfloat16*>(is_value ? op.v_out : op.k_out);
  if (copy) store8(copy + (static_cast<std::int64_t>(token) * op.cache.kv_heads + kv_head) * kHeadDim, lane, row);
}

}  // namespace

cudaError_t qk_norm_rope_append(const QkNormRopeAppend& op, cudaStream_t stream) {
  if (op.tokens == 0) return cudaSuccess;
  const std::int64_t threads =
      static_cast<std::int64_t>(op.tokens) * (op.heads + 2 * op.cache.kv_heads) * kLanesPerHead;
  return launch(qk_norm_rope_append_kernel, static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0,
                stream, op);
}

}  // namespace qwenbench::kernels
