// What becomes of the sums of 64 rows: added up between ranks, and used at once.
#pragma once

#include "kernels/all_reduce_exchange.cuh"
#include "kernels/decode_chain_layout.cuh"

namespace qwenbench::kernels::chain {

// ---- between ranks ----

/// Flag of a collective: which of a launch's two it is, and the launch. Never the flag of fresh staging memory.
struct Collective {
  unsigned flag;
  __device__ explicit Collective(unsigned quad_calls, int which)
      : flag(2 * quad_calls + static_cast<unsigned>(which) + 1) {}
  __device__ uint4* place(const PeerExchange& x, int to, int from, long long at) const {
    return reinterpret_cast<uint4*>(x.quads[to] + ((flag % 2) * x.ranks + from) * kQuadBytes) + at;
  }
};

/// Four bf16 values, each pair beside the flag: 8 bytes arrive as one.
__device__ __forceinline__ void send_quad(const PeerExchange& x, const Collective& c, long long at, uint2 value) {
  for (int to = 0; to < x.ranks; ++to)
    if (to != x.rank) store_shared(c.place(x, to, x.rank, at), make_uint4(value.x, c.flag, value.y, c.flag));
}
__device__ __forceinline__ uint2 receive_quad(const PeerExchange& x, const Collective& c, int from, long long at) {
  const uint4* place = c.place(x, x.rank, from, at);
  uint4 v;
  load_shared(place, v);
  unsigned long long since = 0;
  for (unsigned spin = 1; v.y != c.flag || v.w != c.flag; ++spin) {
    if (spin % 1024 == 0 && gives_up(x, since)) return make_uint2(0x7fff7fffu, 0x7fff7fffu);
    load_shared(place, v);
  }
  return make_uint2(v.x, v.z);
}

__device__ __forceinline__ uint2 bf16_bits(float4 v) {
  return make_uint2(bf16x2_bits(__floats2bfloat162_rn(v.x, v.y)), bf16x2_bits(__floats2bfloat162_rn(v.z, v.w)));
}
__device__ __forceinline__ float4 as_floats(uint2 bits) {
  const float2 low = __bfloat1622float2(bits_bf16x2(bits.x)), high = __bfloat1622float2(bits_bf16x2(bits.y));
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float4 operator*(float4 a, float b) {
  return make_float4(a.x * b, a.y * b, a.z * b, a.w * b);
}

// ---- what becomes of a row block's sums ----

/// What a warp does with the sums of a slice, two items at once. Lane l has quad l % L::kQuads (rows
/// 4 * quad ...) of the (l / L::kQuads)-th token of an item.
template <class L>
struct Finisher {
  static constexpr int kItems = 2, kQuads = L::kQuads;
  const Call& call;
  float factor = 0;         // lane t: of token t, of the norm that the product's input still lacks
  int first = 0, step = 1;  // items first and first + step, where they exist
  float4 residual[kItems];
  uint2 weight;             // of the norm that follows
  long long set = 0;        // of inputs, of this launch: elements
  unsigned quad_calls = 0;  // before this launch

  __device__ static int token(int of_item) {
    return L::kItemTokens * of_item + static_cast<int>(threadIdx.x) % 32 / kQuads;
  }
  __device__ static int quad() { return threadIdx.x % kQuads; }
  __device__ int hidden_slices() const { return (call.hidden + L::kSliceRows - 1) / L::kSliceRows; }
  __device__ int item(int i) const { return first + i * step; }
  __device__ bool finishes(int i) const { return L::kItemTokens * item(i) < call.m; }
  __device__ int my_token(int i) const { return token(item(i)); }
  __device__ bool active(int i) const { return my_token(i) < call.m; }

  /// Factors of norm `which` of the residual, from the sums of squares of its parts: each finishing warp adds up those
  /// of every L::kSlices-th slice. shared: [2][L::kSlices][kTokens].
  __device__ void load_factors(int which, float* shared, int warp) {
    const int lane = threadIdx.x % 32, slices = hidden_slices();
    const float* squares = call.squares + static_cast<long long>(which) * kTokens * slices;
    int log2 = 0;  // of the lanes that share a slice: a power of two from m on
    while ((1 << log2) < call.m) ++log2;
    const int one = min(lane & ((1 << log2) - 1), call.m - 1), step = (32 >> log2) * L::kSlices;
    constexpr int kAtOnce = 10;
    float sum = 0;
#pragma unroll 1
    for (int first = (lane >> log2) * L::kSlices + warp; first < slices; first += kAtOnce * step) {
      float square[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int slice = first + i * step;
        square[i] = slice < slices ? __ldcg(squares + slice * call.m + one) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) sum += square[i];
    }
    for (int other = 1 << log2; other < 32; other *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    float* parts = shared + which * L::kSlices * kTokens;
    if (lane < call.m) parts[warp * kTokens + lane] = sum;
    sync_finishers<L::kSlices>();
    sum = 0;
#pragma unroll
    for (int w = 0; w < L::kSlices; ++w) sum += parts[w * kTokens + min(lane, call.m - 1)];
    factor = rsqrtf(sum / static_cast<float>(call.hidden) + call.norm[which].eps);
  }
  __device__ float factor_of(int item) const { return __shfl_sync(0xffffffffu, factor, my_token(item) % 32); }

  /// Asks for what finish() will need; the sums may be collected meanwhile.
  __device__ __forceinline__ void prefetch(int product, int slice) {
    const int row = slice * L::kSliceRows + quad() * 4;
    if ((product != kO && product != kDown) || row >= call.hidden) return;
    weight = *reinterpret_cast<const uint2*>(call.norm[product == kO ? 0 : 1].weight + row);
#pragma unroll
    for (int item = 0; item < kItems; ++item)  // another thread block may have written it: past L1
      if (active(item)) residual[item] = __ldcg(residual_at(item, row));
  }
  __device__ float4* residual_at(int item, int row) const {
    return reinterpret_cast<float4*>(call.residual + static_cast<long long>(my_token(item)) * call.hidden + row);
  }

  /// residual += sum over ranks; what the next product reads, and the squares for its norm.
  __device__ __forceinline__ void add_to_residual(float4 (&sum)[kItems], int product, int slice) const {
    const int row = slice * L::kSliceRows + quad() * 4;
    const bool inside = row < call.hidden;
    if (call.peers.ranks > 1) sum_over_ranks(sum, product, slice, inside);
    const int which = product == kO ? 0 : 1;
    const float4 w = chain::as_floats(weight) * kChainInputFactor;
    __nv_bfloat16* scaled = call.inputs.scaled[which] + set;
    float* squares = call.squares + (static_cast<long long>(which) * kTokens * hidden_slices() + slice * call.m);
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      if (!finishes(item)) continue;
      const bool valid = inside && active(item);
      float square = 0;
      if (valid) {
        const float4 v = residual[item] + sum[item];
        store_input(scaled + static_cast<long long>(my_token(item)) * call.hidden + row,
                    bf16_bits(make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w)));
        *residual_at(item, row) = v;
        square = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      }
#pragma unroll
      for (int step = kQuads / 2; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffffu, square, step);
      if (quad() == 0 && active(item)) squares[my_token(item)] = square;
    }
  }

  __device__ void sum_over_ranks(float4 (&sum)[kItems], int product, int slice, bool inside) const {
    const PeerExchange& x = call.peers;
    const Collective collective(quad_calls, product == kO ? 0 : 1);
    const auto place = [&](int item) {
      return (static_cast<long long>(slice) * call.m + my_token(item)) * kQuads + quad();
    };
    uint2 own[kItems];
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      own[item] = bf16_bits(sum[item]);
      if (inside && active(item)) send_quad(x, collective, place(item), own[item]);
    }
    const bool watch = slice == 0 && threadIdx.x % 32 == 0 && first == 0;
    const unsigned long long since = watch ? global_time_ns() : 0;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      if (!inside || !active(item)) continue;
      float4 total = make_float4(0, 0, 0, 0);
      for (int r = 0; r < x.ranks; ++r) {
        const float4 part = chain::as_floats(r == x.rank ? own[item] : receive_quad(x, collective, r, place(item)));
        total = r == 0 ? part : total + part;
      }
      sum[item] = total;
    }
    if (watch) atomicAdd(&x.state->nanoseconds, global_time_ns() - since);
  }

  /// Rows of a slice are 16 of gate, the same 16 of up, and so on.
  __device__ void swiglu(const float4 (&sum)[kItems], int slice) const {
    const int column = slice * (L::kSliceRows / 2) + quad() / 8 * 16 + quad() % 4 * 4;
    const bool is_gate = quad() % 8 < 4;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const float4 v = sum[item] * factor_of(item);
      float4 up;
      up.x = __shfl_down_sync(0xffffffffu, v.x, 4), up.y = __shfl_down_sync(0xffffffffu, v.y, 4);
      up.z = __shfl_down_sync(0xffffffffu, v.z, 4), up.w = __shfl_down_sync(0xffffffffu, v.w, 4);
      if (!is_gate || !active(item) || column >= call.intermediate) continue;
      const float4 y =
          make_float4(silu(v.x) * up.x, silu(v.y) * up.y, silu(v.z) * up.z, silu(v.w) * up.w) * kChainInputFactor;
      store_input(call.inputs.mlp + set + static_cast<long long>(my_token(item)) * call.intermediate + column,
                  bf16_bits(y));
    }
  }
  __device__ static float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

  __device__ void store_qkv(const float4 (&sum)[kItems], int slice) const {
    const int row = slice * L::kSliceRows + quad() * 4, n = call.work[kQkv].n;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const float4 v = sum[item] * factor_of(item);
      if (row >= n || !active(item)) continue;
      store_input(call.qkv_out + static_cast<long long>(my_token(item)) * n + row, bf16_bits(v));
    }
  }

  __device__ void finish(float4 (&sum)[kItems], int product, int slice) const {
    if (product == kGateUp)
      swiglu(sum, slice);
    else if (product == kQkv)
      store_qkv(sum, slice);
    else
      add_to_residual(sum, product, slice);
  }
};

}  // namespace qwenbench::kernels::chain
