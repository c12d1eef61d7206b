// The parts of a chain that its thread blocks share: how work is cut, how products wait for each other, and how a
// finished sum is used.
#pragma once

#include "kernels/all_reduce_exchange.cuh"
#include "kernels/decode_chain.h"
#include "kernels/w4_multiply.cuh"

namespace qwenbench::kernels::chain {

constexpr int kProducts = 4;
enum Product { kO = 0, kGateUp = 1, kDown = 2, kQkv = 3 };

constexpr int kUnitK = 128;
constexpr int kRowWarps = 4, kTileRows = 64 * kRowWarps;
constexpr int kTokenStride = kUnitK * 2 + 64;  // bytes; 64 more so that two tokens' 64 bytes fall into distinct banks
constexpr int kMaxStages = 16;
constexpr int kMaxGrid = 256;
constexpr int kMaxRowBlocks = 4096;  // of 64 rows, of one product
constexpr int kTokens = kChainMaxTokens;

/// One product y = x W^T, in tiles of 256 rows and units of 128 columns; each of the first `blocks` thread blocks takes a
/// run of units, at least one.
struct Work {
  const unsigned char* codes;
  const unsigned char* groups;
  const __nv_bfloat16* x;  // [m, k]
  int n, k, row_blocks, units;
  int total;  // units of all tiles
  int blocks;

  __device__ int begin(int block) const {
    return static_cast<int>(static_cast<unsigned>(total) * static_cast<unsigned>(min(block, blocks)) /
                            static_cast<unsigned>(blocks));
  }
  /// The thread block that takes a unit.
  __device__ int owner(int unit) const {
    return static_cast<int>((static_cast<unsigned>(unit + 1) * static_cast<unsigned>(blocks) - 1u) /
                            static_cast<unsigned>(total));
  }
};

/// In the workspace, zero between kernels but for `launches`.
struct Counters {
  unsigned arrived[kMaxRowBlocks];  // parts of a row block's sum that are there
  unsigned done[kProducts];         // finished row blocks
  unsigned left;                    // thread blocks that have left
};

/// What the kernel is given.
struct Call {
  Work work[kProducts];
  int products;  // kProducts, or one less at the model's end
  int m, hidden, intermediate;
  int stages;                      // of the ring
  int in_flight, in_flight_early;  // stages under way at most: of a product at work, of one that waits for its tokens
  ChainNorm norm[2];
  float* residual;
  __nv_bfloat16* scaled;  // [m, hidden]: residual * norm weight; the factor of the norm joins the product's result
  __nv_bfloat16* mlp;     // [m, intermediate]
  __nv_bfloat16* qkv_out;
  float* squares;   // [2][kTokens][row blocks of hidden]: sums of squares of the residual
  float* partials;  // [grid][2][kRowWarps][m][64]
  Counters* counters;
  const unsigned char* after;  // codes of the next chain's first product
  int after_bytes;             // of each thread block
  int after_units;             // of the whole product
  PeerExchange peers;
};

__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void add_release(unsigned* to, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ __forceinline__ unsigned add_acquire_release(unsigned* to, unsigned value) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(to), "r"(value) : "memory");
  return before;
}

/// A slot of the ring and the parity of its present use.
struct Slot {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance(int by, int stages) {
    index += by;
    while (index >= stages) index -= stages, parity ^= 1;
  }
};

// ---- between ranks ----

/// Flag of a collective: which of a launch's two it is, and the launch. Never the flag of fresh staging memory.
struct Collective {
  unsigned flag;
  __device__ explicit Collective(const PeerExchange& x, int which)
      : flag(2 * __ldcg(&x.state->quad_calls) + static_cast<unsigned>(which) + 1) {}
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

/// What a warp does with the sums of 64 rows. Item i of lane l is quad l % 16 (rows 4 * quad ...) of token 2 i + l / 16.
template <int kTokenTiles>
struct Finisher {
  static constexpr int kItems = kTokenTiles * 4;
  const Call& call;
  const float* factors;  // [kTokens], shared memory: of the norm that the product's input still lacks

  __device__ static int token(int item) { return 2 * item + static_cast<int>(threadIdx.x) % 32 / 16; }
  __device__ static int quad() { return threadIdx.x % 16; }
  __device__ bool active(int item) const { return token(item) < call.m; }

  /// residual += sum over ranks; what the next product reads, and the squares for its norm.
  __device__ void add_to_residual(float4 (&sum)[kItems], int product, int row_block) const {
    const int row = row_block * 64 + quad() * 4;
    const bool inside = row < call.hidden;
    if (call.peers.ranks > 1) sum_over_ranks(sum, product, row_block, inside);
    const int which = product == kO ? 0 : 1;
    float4 weight = make_float4(0, 0, 0, 0);
    if (inside) weight = chain::as_floats(*reinterpret_cast<const uint2*>(call.norm[which].weight + row));
    const int blocks = (call.hidden + 63) / 64;
    float* squares = call.squares + static_cast<long long>(which) * kTokens * blocks + row_block;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const bool valid = inside && active(item);
      const long long at = static_cast<long long>(token(item)) * call.hidden + row;
      float square = 0;
      if (valid) {
        float4* place = reinterpret_cast<float4*>(call.residual + at);
        const float4 v = __ldcg(place) + sum[item];  // another thread block may have written it
        *place = v;
        square = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        const float4 scaled = make_float4(v.x * weight.x, v.y * weight.y, v.z * weight.z, v.w * weight.w);
        *reinterpret_cast<uint2*>(call.scaled + at) = bf16_bits(scaled);
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffffu, square, step);
      if (quad() == 0 && active(item)) squares[token(item) * blocks] = square;
    }
  }

  __device__ void sum_over_ranks(float4 (&sum)[kItems], int product, int row_block, bool inside) const {
    const PeerExchange& x = call.peers;
    const Collective collective(x, product == kO ? 0 : 1);
    const auto place = [&](int item) { return (static_cast<long long>(row_block) * call.m + token(item)) * 16 + quad(); };
    uint2 mine[kItems];
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      mine[item] = bf16_bits(sum[item]);
      if (inside && active(item)) send_quad(x, collective, place(item), mine[item]);
    }
    const bool watch = row_block == 0 && threadIdx.x % 32 == 0;
    const unsigned long long since = watch ? global_time_ns() : 0;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      if (!inside || !active(item)) continue;
      float4 total = make_float4(0, 0, 0, 0);
      for (int r = 0; r < x.ranks; ++r) {
        const float4 part =
            chain::as_floats(r == x.rank ? mine[item] : receive_quad(x, collective, r, place(item)));
        total = r == 0 ? part : total + part;
      }
      sum[item] = total;
    }
    if (watch) atomicAdd(&x.state->nanoseconds, global_time_ns() - since);
  }

  /// Rows of a block are 16 of gate, the same 16 of up, and so on.
  __device__ void swiglu(const float4 (&sum)[kItems], int row_block) const {
    const int column = row_block * 32 + quad() / 8 * 16 + quad() % 4 * 4;
    const bool is_gate = quad() % 8 < 4;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const float4 v = sum[item] * factors[token(item)];
      float4 up;
      up.x = __shfl_down_sync(0xffffffffu, v.x, 4), up.y = __shfl_down_sync(0xffffffffu, v.y, 4);
      up.z = __shfl_down_sync(0xffffffffu, v.z, 4), up.w = __shfl_down_sync(0xffffffffu, v.w, 4);
      if (!is_gate || !active(item) || column >= call.intermediate) continue;
      const float4 y = make_float4(silu(v.x) * up.x, silu(v.y) * up.y, silu(v.z) * up.z, silu(v.w) * up.w);
      *reinterpret_cast<uint2*>(call.mlp + static_cast<long long>(token(item)) * call.intermediate + column) =
          bf16_bits(y);
    }
  }
  __device__ static float silu(float x) { return x / (1.0f + __expf(-x)); }

  __device__ void store_qkv(const float4 (&sum)[kItems], int row_block) const {
    const int row = row_block * 64 + quad() * 4, n = call.work[kQkv].n;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      if (row >= n || !active(item)) continue;
      *reinterpret_cast<uint2*>(call.qkv_out + static_cast<long long>(token(item)) * n + row) =
          bf16_bits(sum[item] * factors[token(item)]);
    }
  }

  __device__ void finish(float4 (&sum)[kItems], int product, int row_block) const {
    if (product == kGateUp)
      swiglu(sum, row_block);
    else if (product == kQkv)
      store_qkv(sum, row_block);
    else
      add_to_residual(sum, product, row_block);
  }
};

}  // namespace qwenbench::kernels::chain
