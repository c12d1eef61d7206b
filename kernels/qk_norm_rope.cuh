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

__device__ inline void unpack4(uint2 v, float (&to)[4]) {
  to[0] = bf16_low(v.x);
  to[1] = bf16_high(v.x);
  to[2] = bf16_low(v.y);
  to[3] = bf16_high(v.y);
}

/// What another kernel may be writing.
__device__ inline uint2 load_relaxed8(const __nv_bfloat16* from) {
  uint2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from) : "memory");
  return v;
}

__device__ inline void store4(__nv_bfloat16* to, const float (&x)[4]) {
  *reinterpret_cast<uint2*>(to) = make_uint2(pack<false>(x[0], x[1]), pack<false>(x[2], x[3]));
}

__device__ inline void store8(__nv_bfloat16* to, int lane, const Vector8& x) {
  store4(to + 4 * lane, x.low);
  store4(to + kHalfDim + 4 * lane, x.high);
}

/// What a lane needs of a norm's weight and of a token's angles; read before the row itself has come.
struct HeadTurn {
  uint2 weight_low, weight_high;  // bf16
  float4 cos, sin;
  float eps;

  __device__ void load(const QkNormRopeAppend& op, int token, bool is_query, int lane) {
    const auto* from = static_cast<const __nv_bfloat16*>(is_query ? op.q_weight : op.k_weight) + 4 * lane;
    weight_low = *reinterpret_cast<const uint2*>(from);
    weight_high = *reinterpret_cast<const uint2*>(from + kHalfDim);
    const std::int64_t at = static_cast<std::int64_t>(token) * kHalfDim + 4 * lane;
    cos = *reinterpret_cast<const float4*>(op.cos + at);
    sin = *reinterpret_cast<const float4*>(op.sin + at);
    eps = op.eps;
  }
};

__device__ inline void norm(Vector8& x, const HeadTurn& turn) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) squares += x.low[i] * x.low[i] + x.high[i] * x.high[i];
#pragma unroll
  for (int step = kLanesPerHead / 2; step > 0; step /= 2) squares += __shfl_xor_sync(kAllLanes, squares, step);
  const float factor = 1.0f / sqrtf(squares / kHeadDim + turn.eps);
  Vector8 weight;
  unpack4(turn.weight_low, weight.low);
  unpack4(turn.weight_high, weight.high);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x.low[i] = x.low[i] * factor * weight.low[i];
    x.high[i] = x.high[i] * factor * weight.high[i];
  }
}

__device__ inline void rotate(Vector8& x, const HeadTurn& turn) {
  const float c[4] = {turn.cos.x, turn.cos.y, turn.cos.z, turn.cos.w},
              s[4] = {turn.sin.x, turn.sin.y, turn.sin.z, turn.sin.w};
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
class HeadRow {
 public:
  /// Asks for it.
  __device__ void load(const QkNormRopeAppend& op, int token, int head, int lane) {
    const std::int64_t at = static_cast<std::int64_t>(token) * (op.heads + 2 * op.cache.kv_heads) + head;
    from_ = static_cast<const __nv_bfloat16*>(op.qkv) + at * kHeadDim + 4 * lane;
    look();
  }
  /// Asks again until it is there, where it was announced: its words (two values) are 0 until they are written.
  __device__ void wait() {
    while (min(min(low_.x, low_.y), min(high_.x, high_.y)) == 0) look();
  }

  /// As projected.
  __device__ Vector8 raw() const {
    Vector8 x;
    unpack4(low_, x.low);
    unpack4(high_, x.high);
    return x;
  }
  /// After norm and RoPE.
  __device__ Vector8 turned(const HeadTurn& turn) const {
    Vector8 x = raw();
    norm(x, turn);
    rotate(x, turn);
    return x;
  }
  /// Of a head of K or V: what the cache would hold without rounding.
  __device__ Vector8 kept(const QkNormRopeAppend& op, const HeadTurn& turn, int head) const {
    const Vector8 as_key = turned(turn), as_value = raw();
    const bool is_value = head >= op.heads + op.cache.kv_heads;
    Vector8 row;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row.low[i] = is_value ? as_value.low[i] : as_key.low[i];
      row.high[i] = is_value ? as_value.high[i] : as_key.high[i];
    }
    return row;
  }

 private:
  __device__ void look() { low_ = load_relaxed8(from_), high_ = load_relaxed8(from_ + kHalfDim); }

  const __nv_bfloat16* from_;
  uint2 low_, high_;
};

}  // namespace qwenbench::kernels::device
