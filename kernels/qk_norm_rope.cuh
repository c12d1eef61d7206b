// A head's row of Q, K or V on its way from the QKV projection to attention and the cache, held by 16 lanes.
#pragma once

#include "kernels/attention_device.cuh"
#include "kernels/qk_norm_rope_append.h"

namespace qwenbench::kernels::device {

constexpr int kLanesPerHead = 16;  // a lane holds dims 4j .. 4j+3 and 64+4j .. 64+4j+3, so pairs meet in one lane
constexpr int kHalfDim = kHeadDim / 2;

struct Vector8 {
  float low[4], high[4];
};

__device__ inline void load4(const __nv_bfloat16* from, float (&to)[4]) {
  const uint2 v = *reinterpret_cast<const uint2*>(from);
  to[0] = bf16_low(v.x);
  to[1] = bf16_high(v.x);
  to[2] = bf16_low(v.y);
  to[3] = bf16_high(v.y);
}

__device__ inline void store4(__nv_bfloat16* to, const float (&x)[4]) {
  *reinterpret_cast<uint2*>(to) = make_uint2(pack<false>(x[0], x[1]), pack<false>(x[2], x[3]));
}

__device__ inline void store8(__nv_bfloat16* to, int lane, const Vector8& x) {
  store4(to + 4 * lane, x.low);
  store4(to + kHalfDim + 4 * lane, x.high);
}

__device__ inline void norm(Vector8& x, const __nv_bfloat16* weight, float eps, int lane) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) squares += x.low[i] * x.low[i] + x.high[i] * x.high[i];
#pragma unroll
  for (int step = kLanesPerHead / 2; step > 0; step /= 2) squares += __shfl_xor_sync(kAllLanes, squares, step);
  const float factor = 1.0f / sqrtf(squares / kHeadDim + eps);
  float low[4], high[4];
  load4(weight + 4 * lane, low);
  load4(weight + kHalfDim + 4 * lane, high);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x.low[i] = x.low[i] * factor * low[i];
    x.high[i] = x.high[i] * factor * high[i];
  }
}

__device__ inline void rotate(Vector8& x, const float* cos, const float* sin, int lane) {
  const float4 c4 = *reinterpret_cast<const float4*>(cos + 4 * lane);
  const float4 s4 = *reinterpret_cast<const float4*>(sin + 4 * lane);
  const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // as the CPU backend: no fused multiply-add
    const float low = x.low[i], high = x.high[i];
    x.low[i] = __fsub_rn(__fmul_rn(low, c[i]), __fmul_rn(high, s[i]));
    x.high[i] = __fadd_rn(__fmul_rn(high, c[i]), __fmul_rn(low, s[i]));
  }
}

__device__ inline unsigned codes_of(const float (&x)[4], float scale) {
  unsigned codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    codes |= e4m3_of(__fdiv_rn(__bfloat162float(__float2bfloat16_rn(x[i])), scale),
                     __fdiv_rn(__bfloat162float(__float2bfloat16_rn(x[i + 1])), scale))
             << (8 * i);
  }
  return codes;
}

/// Writes one head's row of K or V at a slot.
__device__ inline void append(const KvLayer& cache, void* data, const float* scale, int head, std::int64_t slot,
                              const Vector8& x, int lane) {
  const std::int64_t block = slot / cache.block_size, offset = slot % cache.block_size;
  const std::int64_t row = (block * cache.kv_heads + head) * cache.block_size + offset;
  if (cache.dtype == KvDtype::kBFloat16) {
    store8(static_cast<__nv_bfloat16*>(data) + row * kHeadDim, lane, x);
  } else {
    const float s = scale[head];
    auto* to = static_cast<std::uint8_t*>(data) + row * kHeadDim;
    *reinterpret_cast<unsigned*>(to + 4 * lane) = codes_of(x.low, s);
    *reinterpret_cast<unsigned*>(to + kHalfDim + 4 * lane) = codes_of(x.high, s);
  }
}

/// Head `head` of the row of `token`, heads in the order q, k, v. Lanes of a warp call it together.
struct HeadRow {
  Vector8 raw, turned;  // as projected; after norm and RoPE

  __device__ HeadRow(const QkNormRopeAppend& op, int token, int head, int lane) {
    const std::int64_t at = static_cast<std::int64_t>(token) * (op.heads + 2 * op.cache.kv_heads) + head;
    const auto* in = static_cast<const __nv_bfloat16*>(op.qkv) + at * kHeadDim;
    load4(in + 4 * lane, raw.low);
    load4(in + kHalfDim + 4 * lane, raw.high);
    turned = raw;
    norm(turned, static_cast<const __nv_bfloat16*>(head < op.heads ? op.q_weight : op.k_weight), op.eps, lane);
    rotate(turned, op.cos + static_cast<std::int64_t>(token) * kHalfDim,
           op.sin + static_cast<std::int64_t>(token) * kHalfDim, lane);
  }

  /// Of a head of K or V: the row that is stored.
  __device__ Vector8 stored(bool is_value) const {
    Vector8 row;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row.low[i] = is_value ? raw.low[i] : turned.low[i];
      row.high[i] = is_value ? raw.high[i] : turned.high[i];
    }
    return row;
  }
};

/// Stores a row of K or V of KV head `head`, where the token has a slot.
__device__ inline void append(const QkNormRopeAppend& op, int token, bool is_value, int head, const Vector8& row,
                              int lane) {
  const std::int64_t slot = op.slot[token];
  if (slot >= 0)
    append(op.cache, is_value ? op.cache.v : op.cache.k, is_value ? op.cache.v_scale : op.cache.k_scale, head, slot,
           row, lane);
}

}  // namespace qwenbench::kernels::device
