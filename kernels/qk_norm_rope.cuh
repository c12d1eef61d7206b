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

/// What a lane stores of a head's row of K or V: its four first and four last dims.
struct StoredRow {
  KvDtype dtype;
  uint2 low, high;  // FP8: the first word of each alone

  StoredRow() = default;
  __device__ StoredRow(KvDtype of_dtype, const Vector8& x, float scale) : dtype(of_dtype) {
    if (dtype == KvDtype::kBFloat16) {
      low = make_uint2(pack<false>(x.low[0], x.low[1]), pack<false>(x.low[2], x.low[3]));
      high = make_uint2(pack<false>(x.high[0], x.high[1]), pack<false>(x.high[2], x.high[3]));
    } else {
      low = make_uint2(codes_of(x.low, scale), 0);
      high = make_uint2(codes_of(x.high, scale), 0);
    }
  }

  /// place(b): where byte b of the row lies.
  template <class Place>
  __device__ void store(int lane, const Place& place) const {
    const auto put = [&](int first_dim, uint2 value) {
      if (dtype == KvDtype::kBFloat16)
        *reinterpret_cast<uint2*>(place(2 * first_dim)) = value;
      else
        *reinterpret_cast<unsigned*>(place(first_dim)) = value.x;
    };
    put(4 * lane, low);
    put(kHalfDim + 4 * lane, high);
  }
};

/// Writes one head's row of K or V at a slot; nothing where that is negative.
__device__ inline void append(const KvLayer& cache, void* data, int head, std::int64_t slot, const StoredRow& row,
                              int lane) {
  if (slot < 0) return;
  const int log2_block = __ffs(cache.block_size) - 1;
  const std::int64_t block = slot >> log2_block, offset = slot & (cache.block_size - 1);
  char* to = static_cast<char*>(data) + ((((block * cache.kv_heads + head) << log2_block) + offset) * kHeadDim
                                         << (cache.dtype == KvDtype::kBFloat16 ? 1 : 0));
  row.store(lane, [&](int byte) { return to + byte; });
}

/// Head `head` of the row of `token`, heads in the order q, k, v. Lanes of a warp call it together.
struct HeadRow {
  Vector8 raw;  // as projected

  __device__ void load(const QkNormRopeAppend& op, int token, int head, int lane) {
    const std::int64_t at = static_cast<std::int64_t>(token) * (op.heads + 2 * op.cache.kv_heads) + head;
    const auto* in = static_cast<const __nv_bfloat16*>(op.qkv) + at * kHeadDim;
    load4(in + 4 * lane, raw.low);
    load4(in + kHalfDim + 4 * lane, raw.high);
  }

  /// After norm and RoPE.
  __device__ Vector8 turned(const QkNormRopeAppend& op, int token, int head, int lane) const {
    Vector8 x = raw;
    norm(x, static_cast<const __nv_bfloat16*>(head < op.heads ? op.q_weight : op.k_weight), op.eps, lane);
    rotate(x, op.cos + static_cast<std::int64_t>(token) * kHalfDim,
           op.sin + static_cast<std::int64_t>(token) * kHalfDim, lane);
    return x;
  }

  /// Of a head of K or V: what the cache would hold without rounding.
  __device__ Vector8 kept(const QkNormRopeAppend& op, int token, int head, int lane) const {
    const Vector8 as_key = turned(op, token, head, lane);
    const bool is_value = head >= op.heads + op.cache.kv_heads;
    Vector8 row;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row.low[i] = is_value ? raw.low[i] : as_key.low[i];
      row.high[i] = is_value ? raw.high[i] : as_key.high[i];
    }
    return row;
  }
};

}  // namespace qwenbench::kernels::device
