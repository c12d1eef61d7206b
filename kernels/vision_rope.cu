#include "kernels/attention_device.cuh"
#include "kernels/launch.h"
#include "kernels/vision_rope.h"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 128;

/// A thread turns four neighbouring pairs of one head. A block serves one patch.
__global__ void vision_rope_kernel(__nv_bfloat16* qkv, const float* cos, const float* sin, int heads, int head_dim) {
  using namespace device;
  const int half = head_dim / 2, quads = half / 4, patch = static_cast<int>(blockIdx.x);
  __nv_bfloat16* row = qkv + static_cast<std::int64_t>(patch) * 3 * heads * head_dim;
  wait_for_previous();
  let_next_start();
  for (int i = static_cast<int>(threadIdx.x); i < 2 * heads * quads; i += kThreads) {
    const int j = i % quads * 4;
    __nv_bfloat16* x = row + i / quads * head_dim + j;
    const float4 c = *reinterpret_cast<const float4*>(cos + static_cast<std::int64_t>(patch) * half + j);
    const float4 s = *reinterpret_cast<const float4*>(sin + static_cast<std::int64_t>(patch) * half + j);
    const uint2 a = *reinterpret_cast<const uint2*>(x), b = *reinterpret_cast<const uint2*>(x + half);
    const auto turn = [](unsigned a2, unsigned b2, float c0, float s0, float c1, float s1, unsigned& a_out,
                         unsigned& b_out) {
      const float a0 = bf16_low(a2), a1 = bf16_high(a2), b0 = bf16_low(b2), b1 = bf16_high(b2);
      a_out = pack<false>(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1);
      b_out = pack<false>(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1);
    };
    uint2 a_out, b_out;
    turn(a.x, b.x, c.x, s.x, c.y, s.y, a_out.x, b_out.x);
    turn(a.y, b.y, c.z, s.z, c.w, s.w, a_out.y, b_out.y);
    *reinterpret_cast<uint2*>(x) = a_out;
    *reinterpret_cast<uint2*>(x + half) = b_out;
  }
}

}  // namespace

cudaError_t vision_rope(void* qkv, const float* cos, const float* sin, int patches, int heads, int head_dim,
                        cudaStream_t stream) {
  if (head_dim % 8 != 0) return cudaErrorInvalidValue;
  if (patches == 0) return cudaSuccess;
  return launch(vision_rope_kernel, patches, kThreads, 0, stream, static_cast<__nv_bfloat16*>(qkv), cos, sin, heads,
                head_dim);
}

}  // namespace qwenbench::kernels
