// What the warps of a chain's thread block share: how work is cut, how products wait for each other, and what lies
// where in shared memory.
#pragma once

#include <algorithm>

#include "kernels/decode_chain.h"
#include "kernels/ring_slot.cuh"
#include "kernels/w4_multiply.cuh"

namespace qwenbench::kernels::chain {

constexpr int kProducts = 4;
enum Product { kO = 0, kGateUp = 1, kDown = 2, kQkv = 3 };

constexpr int kUnitK = 128;
constexpr int kTileBlocks = 4, kTileRows = kTileBlocks * kW4RowBlock;
constexpr int kTokenStride = kUnitK * 2 + 64;  // bytes; 64 more so that two tokens' 64 bytes fall into distinct banks
constexpr int kMaxStages = 16;
constexpr int kMaxGrid = 256, kPlaces = kMaxGrid + 8;  // thread blocks; what may be read behind them
constexpr int kTokens = kChainMaxTokens;
static_assert(kChainInputFactor == kW4TokenFactor);

/// One product y = x W^T, in tiles of 256 rows and units of 128 columns. A thread block takes a run of units of the
/// tiles that are shared, less than a tile's, and then `whole` tiles alone: their sums wait for nobody when the product
/// ends.
struct Work {
  const unsigned char* codes;
  const unsigned char* groups;
  const __nv_bfloat16* x;  // [m, k]
  int n, k, units;
  int row_blocks;  // of 64
  int slices;      // of Layout::kSliceRows
  int shared;      // units of the first tiles, which are shared
  int blocks;      // the first thread blocks, which share them
  int whole;

  /// The first shared unit of a thread block.
  __device__ int begin(int block) const {
    return static_cast<int>(static_cast<unsigned>(shared) * static_cast<unsigned>(min(block, blocks)) /
                            static_cast<unsigned>(blocks));
  }
  /// The thread block that takes a shared unit.
  __device__ int owner(int unit) const {
    return static_cast<int>((static_cast<unsigned>(unit + 1) * static_cast<unsigned>(blocks) - 1u) /
                            static_cast<unsigned>(shared));
  }
  /// Calls fn(tile, first unit, unit behind the last) for what this thread block multiplies, in order.
  template <class Fn>
  __device__ __forceinline__ void for_my_pieces(Fn fn) const {
    const int end = begin(blockIdx.x + 1);
    int at = begin(blockIdx.x), whole_tile = shared / units + static_cast<int>(blockIdx.x) * whole;
#pragma unroll 1
    for (int left = whole; at < end || left > 0;) {
      int tile = whole_tile, first = 0, last = units;
      if (at < end) {
        tile = at / units, first = at - tile * units, last = min(first + end - at, units);
        at += last - first;
      } else {
        ++whole_tile, --left;
      }
      fn(tile, first, last);  // the one call: fn is inlined, and all of the code should stay in the instruction cache
    }
  }
};

/// In the workspace; the first two are zero between kernels.
struct Counters {
  unsigned done[kProducts];  // items of slices that are finished
  unsigned left;             // warps that have left
  unsigned launches;         // so far
  unsigned last_m;           // tokens of the last launch
};

/// What products read that others of the same launch write, which waits word by word (two values; present()). Launches
/// take two sets in turn, and each clears the other's.
struct Inputs {
  // All of them times kChainInputFactor.
  __nv_bfloat16* scaled[2];  // [m, hidden]: residual * norm weight; the factor of the norm joins the product's result
  __nv_bfloat16* mlp;        // [m, intermediate]
  long long set;             // elements between the sets

  /// Elements of one set.
  __host__ __device__ static long long elements(int hidden, int intermediate) {
    return static_cast<long long>(kTokens) * (2 * hidden + intermediate);
  }
};

/// What the kernel is given.
struct Call {
  Work work[kProducts];
  int products;  // kProducts, or one less at the model's end
  int m, hidden, intermediate;
  int items;                       // of a slice (Layout)
  int stages;                      // of the ring
  int in_flight, in_flight_early;  // stages under way at most: of a product at work, of one that waits for its tokens
  ChainNorm norm[2];
  float* residual;
  Inputs inputs;
  __nv_bfloat16* qkv_out;
  float* squares;  // [2][slices of hidden][m]: sums of squares of the residual
  uint4* parts;    // [2][kPlaces][slices of a tile][items][32]: see SumFinisher
  Counters* counters;
  PeerExchange peers;
};

__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
/// What other thread blocks wait for word by word: a word is 0 until it is written, and 0 is written as -0.
__device__ __forceinline__ unsigned present(unsigned word) { return word == 0 ? 0x80000000u : word; }
__device__ __forceinline__ uint4 present(uint4 v) {
  return make_uint4(present(v.x), present(v.y), present(v.z), present(v.w));
}
__device__ __forceinline__ bool is_present(uint4 v) { return min(min(v.x, v.y), min(v.z, v.w)) != 0; }

/// Four values that a product of this launch reads.
__device__ __forceinline__ void store_input(__nv_bfloat16* to, uint2 v) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(present(v.x)), "r"(present(v.y))
               : "memory");
}
__device__ __forceinline__ void add_release(unsigned* to, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

/// What other thread blocks of this device read or write meanwhile; each word is judged by itself.
__device__ __forceinline__ void store_relaxed(uint4* to, uint4 v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ __forceinline__ uint4 load_relaxed(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

/// The finishers have cleared what the next kernel looks at before this one ends; whoever lets it start waits for that.
template <int kFinishers>
__device__ __forceinline__ void say_cleared() {
  asm volatile("bar.arrive 1, %0;" ::"n"((kFinishers + 1) * 32) : "memory");
}
template <int kFinishers>
__device__ __forceinline__ void wait_until_cleared() {
  asm volatile("bar.sync 1, %0;" ::"n"((kFinishers + 1) * 32) : "memory");
}
template <int kFinishers>
__device__ __forceinline__ void sync_finishers() {
  asm volatile("bar.sync 2, %0;" ::"n"(kFinishers * 32) : "memory");
}

/// kGroups: scales per row and unit of weights. kTokenTiles: of 8 tokens; kOneToken: there is one alone. kSliceRows: of
/// a tile's rows, what one warp finishes. Smaller slices are more warps, which share out fewer registers than all of
/// them ask for: sm_90a alone can give those that multiply more of them.
template <int kGroups_, int kTokenTiles_, bool kOneToken = false, int kSliceRows_ = 64>
struct Layout {
  using Totals = GivenTotals<kOneToken>;
  static constexpr int kGroups = kGroups_;
  using Format = W4Format<kGroups, true>;
  static constexpr int kTokenTiles = kTokenTiles_, kSplit = 2;
  static constexpr int kSliceRows = kSliceRows_, kSlices = kTileRows / kSliceRows;
  // An item: some tokens of a slice, one for as many lanes as there are quads of rows.
  static constexpr int kQuads = kSliceRows / 4, kItemTokens = 32 / kQuads;
  static constexpr int kMaxItems = kOneToken ? 1 : kTokenTiles * 8 / kItemTokens;
  static constexpr int kMultipliers = kTileBlocks * kSplit, kFirstStreamer = kMultipliers + kSlices;
  static constexpr int kTokenWarps = kTokenTiles, kAdder = kFirstStreamer + kTokenWarps, kWarps = kAdder + 2;
  static constexpr int kThreads = kWarps * 32;
  // Registers of a thread that its role leaves or needs (hopper.cuh), where there are more than 16 warps.
  static constexpr bool kShiftsRegisters = kWarps > 16;
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8, kMultiplierRegisters = 120, kStreamerRegisters = 48;
  static_assert(!kShiftsRegisters || (kMultipliers % 4 == 0 && kSlices % 4 == 0 && kWarps % 4 == 0 &&
                                      kMultipliers * kMultiplierRegisters + kSlices * kLaunchRegisters +
                                              (kWarps - kFirstStreamer) * kStreamerRegisters <=
                                          kWarps * kLaunchRegisters));
  static constexpr int kWeightBytes = kTileBlocks * Format::kBlockBytes;
  static constexpr int kSumStride = kSliceRows + 4;  // floats; 2 * stride = 8 modulo 32
  static constexpr int kBarriers = 4 * kMaxStages + 2 * kTileBlocks + 2 * kProducts, kBarrierBytes = 768;
  static constexpr int kTotals = Format::kTotalsFloats;  // of a stage
  static constexpr int kSquares = 2 * kSlices * kTokens;
  static constexpr int kHeadBytes = kBarrierBytes + (kMaxStages * kTotals + kSquares) * 4;
  static_assert(kBarriers * 8 <= kBarrierBytes && kHeadBytes % 128 == 0);

  __host__ __device__ static int stage_bytes(int m) { return (kWeightBytes + m * kTokenStride + 127) / 128 * 128; }
  __host__ __device__ static int sum_floats(int m) { return kSplit * kSlices * m * kSumStride; }
  static int shared_bytes(int m, int stages) { return kHeadBytes + stages * stage_bytes(m) + sum_floats(m) * 4; }
  /// A slot belongs to one set of warps: one that had not waited for a slot's earlier use would take that use's parity
  /// for its own.
  static int stages(int m, int budget) {
    return std::min((budget - shared_bytes(m, 0)) / stage_bytes(m), kMaxStages) / kSplit * kSplit;
  }
};

/// What lies in shared memory. Barriers come first: of the ring's stages (weights there, tokens there, totals, room),
/// of the sums of each row block (there, room), of the products (their first tokens are there, all are written).
template <class L>
struct Shared {
  std::uint32_t weights, tokens, totals_there, room, sums_there, sums_room, begun, complete;
  unsigned char* stages;
  float* totals;   // [kMaxStages][L::kTotals]: sums of tokens over groups (GivenTotals)
  float* squares;  // [2][L::kSlices][kTokens]: of parts of the residual, for its norms
  float* sums;     // [kSplit][L::kSlices][m][kSumStride]
  int stage_bytes;

  __device__ Shared(unsigned char* shared, const Call& call) {
    weights = shared_address(shared);
    tokens = weights + kMaxStages * 8;
    totals_there = tokens + kMaxStages * 8;
    room = totals_there + kMaxStages * 8;
    sums_there = room + kMaxStages * 8;
    sums_room = sums_there + kTileBlocks * 8;
    begun = sums_room + kTileBlocks * 8;
    complete = begun + kProducts * 8;
    totals = reinterpret_cast<float*>(shared + L::kBarrierBytes);
    squares = totals + kMaxStages * L::kTotals;
    stages = shared + L::kHeadBytes;
    stage_bytes = L::stage_bytes(call.m);
    sums = reinterpret_cast<float*>(stages + call.stages * stage_bytes);
  }
  __device__ void init_barriers(int stages_count) const {
    for (int i = 0; i < stages_count; ++i) {
      init_barrier(weights + i * 8, kWeightArrivals);
      init_barrier(tokens + i * 8, 32 * L::kTokenWarps);
      init_barrier(totals_there + i * 8, 32);
      init_barrier(room + i * 8, kTileBlocks);
    }
    for (int i = 0; i < kTileBlocks; ++i) {
      init_barrier(sums_there + i * 8, 32 * L::kSplit);
      init_barrier(sums_room + i * 8, 32 * L::kSlices / kTileBlocks);
    }
    for (int p = 0; p < kProducts; ++p) init_barrier(begun + p * 8, 1), init_barrier(complete + p * 8, 1);
    fence_barriers();
  }
  __device__ std::uint32_t stage(int index) const { return shared_address(stages) + index * stage_bytes; }
};

}  // namespace qwenbench::kernels::chain
