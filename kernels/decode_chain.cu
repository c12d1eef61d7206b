// A thread block a multiprocessor. One warp streams its share of all products' weights through a ring in shared memory,
// as far ahead as there is room; one brings the tokens' columns of each stage, as soon as the product before has written
// them; four warps a stage multiply (w4_multiply.cuh), kSplit sets of them in turn; four finish sums.
//
// Columns of a row block are spread over thread blocks: whoever brings the last part of 64 rows adds all parts, in the
// order of the columns, and uses the sum at once (Finisher). A product's input is ready when all row blocks of the
// product before are done. A norm needs the whole row, but it is a factor: its input goes on without, and the products'
// results are multiplied by it.
#include <algorithm>

#include "kernels/decode_chain.cuh"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace chain {
namespace {

template <int kGroups, int kTokenTiles_, int kSplit_>
struct Layout {
  using Format = W4Format<kGroups, true>;
  static constexpr int kTokenTiles = kTokenTiles_, kSplit = kSplit_;
  static constexpr int kMultipliers = kRowWarps * kSplit, kWarps = kMultipliers + kRowWarps + 2;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kWeightBytes = kRowWarps * Format::kBlockBytes;
  static constexpr int kSumStride = 64 + 4;                                           // floats; 2 * stride = 8 modulo 32
  static constexpr int kBarriers = 3 * kMaxStages + 2 * kRowWarps + 1, kHeadBytes = 640;  // barriers, then factors
  static_assert(kBarriers * 8 <= kHeadBytes - 68);

  __host__ __device__ static int stage_bytes(int m) { return (kWeightBytes + m * kTokenStride + 127) / 128 * 128; }
  __host__ __device__ static int sum_floats(int m) { return kMultipliers * m * kSumStride; }
  static int shared_bytes(int m, int stages) { return kHeadBytes + stages * stage_bytes(m) + sum_floats(m) * 4; }
  /// A slot belongs to one set of warps: one that had not waited for a slot's earlier use would take that use's parity
  /// for its own.
  static int stages(int m, int budget) {
    return std::min((budget - shared_bytes(m, 0)) / stage_bytes(m), kMaxStages) / kSplit * kSplit;
  }
};

/// What lies in shared memory. Barriers come first: of the ring's stages (weights there, tokens there, room), of the
/// sums of each row warp (there, room), of the norm's factors.
template <class L>
struct Shared {
  std::uint32_t weights, tokens, room, sums_there, sums_room, factors_there;
  float* factors;             // [kTokens]
  volatile int* at_work;      // the product whose tokens are there
  unsigned char* stages;
  float* sums;  // [kRowWarps][kSplit][m][kSumStride]
  int stage_bytes;

  __device__ Shared(unsigned char* shared, const Call& call) {
    weights = shared_address(shared);
    tokens = weights + kMaxStages * 8;
    room = tokens + kMaxStages * 8;
    sums_there = room + kMaxStages * 8;
    sums_room = sums_there + kRowWarps * 8;
    factors_there = sums_room + kRowWarps * 8;
    factors = reinterpret_cast<float*>(shared + L::kHeadBytes - 64);
    at_work = reinterpret_cast<int*>(shared + L::kHeadBytes - 68);
    stages = shared + L::kHeadBytes;
    stage_bytes = L::stage_bytes(call.m);
    sums = reinterpret_cast<float*>(stages + call.stages * stage_bytes);
  }
  __device__ void init_barriers(int stages_count) const {
    for (int i = 0; i < stages_count; ++i) {
      init_barrier(weights + i * 8, kWeightArrivals);
      init_barrier(tokens + i * 8, 32);
      init_barrier(room + i * 8, kRowWarps);
    }
    for (int i = 0; i < kRowWarps; ++i) {
      init_barrier(sums_there + i * 8, L::kSplit);
      init_barrier(sums_room + i * 8, 1);
    }
    init_barrier(factors_there, 1);
    fence_barriers();
  }
  __device__ std::uint32_t stage(int index) const { return shared_address(stages) + index * stage_bytes; }
};

/// The warp that streams weights: it waits for room, and for what is on its way.
template <class L>
__device__ __forceinline__ void bring_weights(const Call& call, const Shared<L>& shared) {
  using Format = typename L::Format;
  constexpr int kGroupBytes = Format::kBlockBytes - kW4UnitCodes;
  const int lane = threadIdx.x % 32;
  Slot slot, landing;
  int under_way = 0;
  for (int p = 0; p < call.products; ++p) {
    const Work& work = call.work[p];
    const int end = work.begin(blockIdx.x + 1);
    int at = work.begin(blockIdx.x);
    while (at < end) {
      const int tile = at / work.units, tile_end = min(end, (tile + 1) * work.units);
      const int blocks = min(kRowWarps, work.row_blocks - tile * kRowWarps);
      // Row blocks of a tile lie side by side, unit after unit (w4_block).
      const long long first = static_cast<long long>(tile) * kRowWarps * work.units + (at % work.units) * blocks;
      const unsigned char* codes = work.codes + first * kW4UnitCodes;
      const unsigned char* groups = work.groups + first * kGroupBytes;
      for (; at < tile_end; ++at) {
        // More at once would not come sooner, but would make the products' own traffic wait behind it.
        const int allowed = p <= *shared.at_work ? call.in_flight : call.in_flight_early;
        for (; under_way >= allowed; --under_way) {
          wait_parity(shared.weights + landing.index * 8, landing.parity);
          landing.advance(1, call.stages);
        }
        ++under_way;
        wait_parity(shared.room + slot.index * 8, slot.parity ^ 1);
        if (lane == 0 || !kCopyEngine) {
          const std::uint32_t there = shared.weights + slot.index * 8, to = shared.stage(slot.index);
          expect_bytes(there, blocks * Format::kBlockBytes);
          copy_bulk(to, codes, blocks * kW4UnitCodes, there, lane, 32);
          copy_bulk(to + kRowWarps * kW4UnitCodes, groups, blocks * kGroupBytes, there, lane, 32);
          if (!kCopyEngine) arrive_after_copies(there);
        }
        __syncwarp();
        codes += blocks * kW4UnitCodes;
        groups += blocks * kGroupBytes;
        slot.advance(1, call.stages);
      }
    }
  }
  allow_next_kernel();
  if (call.after_bytes > 0) {
    const long long first = static_cast<long long>(call.after_units) * blockIdx.x / gridDim.x;
    prefetch_bulk(call.after + first * (kRowWarps * kW4UnitCodes), call.after_bytes, lane);
  }
}

/// The factors of the norm of the residual, from the sums of squares of its parts.
template <class L>
__device__ __forceinline__ void bring_factors(const Call& call, int which, const Shared<L>& shared) {
  const int lane = threadIdx.x % 32, blocks = (call.hidden + 63) / 64;
  const float* squares = call.squares + static_cast<long long>(which) * kTokens * blocks;
  float mine = 0;
#pragma unroll 8
  for (int token = 0; token < call.m; ++token) {
    float sum = 0;
    for (int block = lane; block < blocks; block += 32) sum += __ldcg(squares + token * blocks + block);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == token) mine = sum;
  }
  if (lane < kTokens) shared.factors[lane] = rsqrtf(mine / static_cast<float>(call.hidden) + call.norm[which].eps);
  __syncwarp();
  if (lane == 0) arrive(shared.factors_there);
}

__device__ __forceinline__ void wait_for_product(const Call& call, int product) {
  if (threadIdx.x % 32 == 0) {
    const unsigned all = static_cast<unsigned>(call.work[product].row_blocks);
    while (load_acquire(&call.counters->done[product]) < all) {
    }
  }
  __syncwarp();
}

/// The warp that brings the tokens, a product at a time. What the ring holds at once needs no room to become free, so
/// the factors come behind it.
template <class L>
__device__ __forceinline__ void bring_tokens(const Call& call, const Shared<L>& shared) {
  constexpr int kPieces = kUnitK / 8, kAtOnce = 32 / kPieces;  // 16 bytes a lane, two tokens at once
  const int lane = threadIdx.x % 32, token = lane / kPieces, piece = lane % kPieces;
  Slot slot;
  wait_for_previous_kernel();
  for (int p = 0; p < call.products; ++p) {
    const Work& work = call.work[p];
    int at = work.begin(blockIdx.x);
    const int end = work.begin(blockIdx.x + 1), ahead = min(at + call.stages, end);
    const __nv_bfloat16* row = work.x + static_cast<long long>(token) * work.k + piece * 8;
    int column = at % work.units * kUnitK;
    if (p > 0) wait_for_product(call, p - 1);
    if (lane == 0) *shared.at_work = p;
    const auto bring = [&](int to) {
      for (; at < to; ++at) {
        const bool inside = column + piece * 8 < work.k;  // zeros past the last column
        const std::uint32_t place = shared.stage(slot.index) + L::kWeightBytes + token * kTokenStride + piece * 16;
        wait_parity(shared.room + slot.index * 8, slot.parity ^ 1);
#pragma unroll
        for (int i = 0; i < L::kTokenTiles * 8; i += kAtOnce)
          if (i + token < call.m)
            cp_async16(place + i * kTokenStride, row + (inside ? column + static_cast<long long>(i) * work.k : 0), inside);
        arrive_after_copies(shared.tokens + slot.index * 8);
        __syncwarp();  // no lane falls behind by two uses of a slot
        slot.advance(1, call.stages);
        column += kUnitK;
        if (column >= work.units * kUnitK) column = 0;
      }
    };
    bring(ahead);
    if (p == kGateUp || p == kQkv) bring_factors(call, p == kGateUp ? 0 : 1, shared);
    bring(end);
  }
}

/// Calls fn(product, tile, end of this thread block's part of the tile) for all its tiles in order.
template <class Fn>
__device__ __forceinline__ void for_my_tiles(const Call& call, Fn fn) {
  for (int p = 0; p < call.products; ++p) {
    const Work& work = call.work[p];
    const int begin = work.begin(blockIdx.x), end = work.begin(blockIdx.x + 1);
    for (int at = begin; at < end;) {
      const int tile = at / work.units, tile_end = min(end, (tile + 1) * work.units);
      fn(p, tile, at, tile_end);
      at = tile_end;
    }
  }
}

/// A warp that multiplies: every kSplit-th stage, 64 rows of it.
template <class L>
__device__ __forceinline__ void multiply_stages(const Call& call, const Shared<L>& shared) {
  const int lane = threadIdx.x % 32, row_warp = threadIdx.x / 32 / L::kSplit, split = threadIdx.x / 32 % L::kSplit;
  const int g = lane / 4, t = lane % 4;
  int token_offset[L::kTokenTiles];
#pragma unroll
  for (int tt = 0; tt < L::kTokenTiles; ++tt)
    token_offset[tt] = L::kWeightBytes + min(tt * 8 + g, call.m - 1) * kTokenStride + t * 16;
  const auto constants = L::Format::constants();
  float* sums = shared.sums + (row_warp * L::kSplit + split) * call.m * L::kSumStride;
  float acc[4][L::kTokenTiles][4] = {};
  Slot slot;
  slot.advance(split, call.stages);
  int wait = split;  // stages until this warp's next one
  std::uint32_t sums_parity = 1;
  for_my_tiles(call, [&](int, int, int begin, int end) {
    int at = begin + wait;
    for (; at < end; at += L::kSplit) {
      wait_parity(shared.tokens + slot.index * 8, slot.parity);
      wait_parity(shared.weights + slot.index * 8, slot.parity);
      L::Format::template multiply<L::kTokenTiles, kRowWarps>(shared.stages + slot.index * shared.stage_bytes, row_warp,
                                                              lane, token_offset, constants, acc);
      __syncwarp();
      if (lane == 0) arrive(shared.room + slot.index * 8);
      slot.advance(L::kSplit, call.stages);
    }
    wait = at - end;
    wait_parity(shared.sums_room + row_warp * 8, sums_parity);
    sums_parity ^= 1;
#pragma unroll
    for (int tt = 0; tt < L::kTokenTiles; ++tt)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = tt * 8 + 2 * t + i % 2;
#pragma unroll
        for (int rt = 0; rt < 4; ++rt) {
          if (token < call.m) sums[token * L::kSumStride + rt * 16 + g + i / 2 * 8] = acc[rt][tt][i];
          acc[rt][tt][i] = 0.f;
        }
      }
    __syncwarp();
    if (lane == 0) arrive(shared.sums_there + row_warp * 8);
  });
}

/// A warp that finishes the sums of 64 rows of every tile, while the others go on.
template <class L>
class SumFinisher {
  using F = Finisher<L::kTokenTiles>;

 public:
  __device__ SumFinisher(const Call& call, const Shared<L>& shared, int row_warp)
      : call_(call), shared_(shared), row_warp_(row_warp), finisher_{call, shared.factors} {}

  __device__ __forceinline__ void run() {
    wait_for_previous_kernel();
    std::uint32_t parity = 0;
    for_my_tiles(call_, [&](int product, int tile, int begin, int end) {
      const Work& work = call_.work[product];
      float4 sum[F::kItems];
      wait_parity(shared_.sums_there + row_warp_ * 8, parity);
      parity ^= 1;
      add_sets(sum);
      __syncwarp();
      if (threadIdx.x % 32 == 0) arrive(shared_.sums_room + row_warp_ * 8);
      const int row_block = tile * kRowWarps + row_warp_;
      if (row_block >= work.row_blocks) return;
      if (end - begin < work.units && !add_blocks(work, row_block, tile * work.units, begin, sum)) return;
      if (product == kGateUp || product == kQkv) wait_parity(shared_.factors_there, product == kGateUp ? 0 : 1);
      finisher_.finish(sum, product, row_block);
      __syncwarp();
      if (product + 1 < call_.products && threadIdx.x % 32 == 0) add_release(&call_.counters->done[product], 1);
    });
  }

 private:
  __device__ __forceinline__ void add_sets(float4 (&sum)[F::kItems]) const {
    const float* sums = shared_.sums + row_warp_ * L::kSplit * call_.m * L::kSumStride + F::quad() * 4;
#pragma unroll
    for (int item = 0; item < F::kItems; ++item) {
      sum[item] = make_float4(0, 0, 0, 0);
      if (!finisher_.active(item)) continue;
      const float* from = sums + F::token(item) * L::kSumStride;
      sum[item] = *reinterpret_cast<const float4*>(from);
#pragma unroll
      for (int s = 1; s < L::kSplit; ++s)
        sum[item] = sum[item] + *reinterpret_cast<const float4*>(from + s * call_.m * L::kSumStride);
    }
  }

  __device__ __forceinline__ float4* part(int block, int slot) const {
    float* rows = call_.partials + ((static_cast<long long>(block) * 2 + slot) * kRowWarps + row_warp_) * call_.m * 64;
    return reinterpret_cast<float4*>(rows) + threadIdx.x % 32;
  }

  /// Hands in this thread block's part of a row block: in slot 0 where it begins within the tile (so do all but the
  /// first of the tile), else in slot 1. True where it was the last, `sum` then being that of all.
  __device__ __forceinline__ bool add_blocks(const Work& work, int row_block, int tile_begin, int begin,
                                             float4 (&sum)[F::kItems]) const {
    const int first = work.owner(tile_begin), last = work.owner(tile_begin + work.units - 1);
    float4* mine = part(blockIdx.x, begin > tile_begin ? 0 : 1);
#pragma unroll
    for (int item = 0; item < F::kItems; ++item)
      if (finisher_.active(item)) __stcg(mine + item * 32, sum[item]);
    __syncwarp();
    int is_last = 0;
    if (threadIdx.x % 32 == 0) {
      unsigned* counter = call_.counters->arrived + row_block;
      is_last = add_acquire_release(counter, 1) == static_cast<unsigned>(last - first);
      if (is_last) *counter = 0;
    }
    if (!__shfl_sync(0xffffffffu, is_last, 0)) return false;
#pragma unroll
    for (int item = 0; item < F::kItems; ++item)
      if (finisher_.active(item)) sum[item] = __ldcg(part(first, 1) + item * 32);
#pragma unroll 4
    for (int c = first + 1; c <= last; ++c)
#pragma unroll
      for (int item = 0; item < F::kItems; ++item)
        if (finisher_.active(item)) sum[item] = sum[item] + __ldcg(part(c, 0) + item * 32);
    return true;
  }

  const Call& call_;
  const Shared<L>& shared_;
  const int row_warp_;
  const F finisher_;
};

/// The last thread block to leave makes the counters ready for the next kernel.
__device__ __forceinline__ void leave(const Call& call) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  Counters& counters = *call.counters;
  __threadfence();
  if (atomicAdd(&counters.left, 1u) != gridDim.x - 1) return;
  for (unsigned& done : counters.done) done = 0;
  counters.left = 0;
  if (call.peers.ranks > 1) ++call.peers.state->quad_calls;
}

template <class L>
__global__ void __launch_bounds__(L::kThreads, 1) decode_chain_kernel(const __grid_constant__ Call call) {
  extern __shared__ __align__(128) unsigned char memory[];
  const Shared<L> shared(memory, call);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x == 0) shared.init_barriers(call.stages), *shared.at_work = -1;
  __syncthreads();
  if (warp < L::kMultipliers)
    multiply_stages(call, shared);
  else if (warp < L::kMultipliers + kRowWarps)
    SumFinisher<L>(call, shared, warp - L::kMultipliers).run();
  else if (warp == L::kWarps - 2)
    bring_tokens(call, shared);
  else
    bring_weights(call, shared);
  leave(call);
}

// ---- the host's side ----

#ifndef CHAIN_SPLIT
#define CHAIN_SPLIT 2
#endif
constexpr int kSplit = CHAIN_SPLIT;

int groups_per_unit(const W4Weights& w) { return w.group_size < kUnitK ? 4 : 1; }

Work work_of(const W4Weights& w, const __nv_bfloat16* x, int grid) {
  Work work{};
  if (w.n == 0) return work;
  work.codes = static_cast<const unsigned char*>(w.codes);
  work.groups = static_cast<const unsigned char*>(w.groups);
  work.x = x;
  work.n = w.n;
  work.k = w.k;
  work.row_blocks = (w.n + 63) / 64;
  work.units = (w.k + kUnitK - 1) / kUnitK;
  work.total = (w.n + kTileRows - 1) / kTileRows * work.units;
  work.blocks = std::min(grid, work.total);
  return work;
}

/// Parts of the workspace, one behind the other.
struct Workspace {
  std::size_t counters = 0, squares, scaled, mlp, partials, bytes;
  explicit Workspace(const DecodeChain& c) {
    const auto aligned = [](std::size_t n) { return (n + 255) / 256 * 256; };
    squares = aligned(sizeof(Counters));
    scaled = squares + aligned(sizeof(float) * 2 * ((c.down.n + 63) / 64) * kTokens);
    mlp = scaled + aligned(sizeof(__nv_bfloat16) * kTokens * c.down.n);
    partials = mlp + aligned(sizeof(__nv_bfloat16) * kTokens * c.down.k);
    bytes = partials + sizeof(float) * kMaxGrid * 2 * kTileRows * kTokens;
  }
};

Call call_of(const DecodeChain& c, int grid) {
  const Workspace at(c);
  auto* workspace = static_cast<unsigned char*>(c.workspace);
  Call call{};
  call.m = c.m;
  call.hidden = c.down.n;
  call.intermediate = c.down.k;
  call.norm[0] = c.middle;
  call.norm[1] = c.next;
  call.residual = c.residual;
  call.qkv_out = c.qkv_out;
  call.counters = reinterpret_cast<Counters*>(workspace);
  call.squares = reinterpret_cast<float*>(workspace + at.squares);
  call.scaled = reinterpret_cast<__nv_bfloat16*>(workspace + at.scaled);
  call.mlp = reinterpret_cast<__nv_bfloat16*>(workspace + at.mlp);
  call.partials = reinterpret_cast<float*>(workspace + at.partials);
  call.peers = c.peers;
  call.products = c.qkv.n > 0 ? kProducts : kProducts - 1;
  call.work[kO] = work_of(c.o, c.attended, grid);
  call.work[kGateUp] = work_of(c.gate_up, call.scaled, grid);
  call.work[kDown] = work_of(c.down, call.mlp, grid);
  call.work[kQkv] = work_of(c.qkv, call.scaled, grid);
  return call;
}

/// Bytes of the next chain's first product that each thread block asks L2 for.
constexpr int kPrefetchBytes = 96 << 10;

void set_prefetch(const W4Weights& after, int grid, Call& call) {
  if (after.n == 0 || after.n % kTileRows != 0) return;  // else a tile is no whole run of memory
  const Work work = work_of(after, nullptr, grid);
  call.after = work.codes;
  call.after_units = work.total;
  call.after_bytes = std::min(work.total / grid * kRowWarps * kW4UnitCodes, kPrefetchBytes);
}

constexpr int kInFlight = 3, kInFlightEarly = 1;

template <class L>
cudaError_t start(const DecodeChain& c, cudaStream_t stream) {
  int device = 0, multiprocessors = 0, budget = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&budget, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  // All thread blocks must be there at the same time: one a multiprocessor, less where ranks share the device.
  const int grid = std::min(multiprocessors / c.peers.sharing, kMaxGrid);
  Call call = call_of(c, grid);
  call.stages = L::stages(c.m, budget);
  if (call.stages < 2) return cudaErrorInvalidConfiguration;
  call.in_flight = std::min(kInFlight, call.stages - 1);
  call.in_flight_early = std::min(kInFlightEarly, call.stages - 1);
  const int bytes = L::shared_bytes(c.m, call.stages);
  set_prefetch(c.after, grid, call);
  const auto kernel = decode_chain_kernel<L>;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return launch(kernel, dim3(grid), dim3(L::kThreads), bytes, stream, call);
}

}  // namespace
}  // namespace chain

std::size_t decode_chain_workspace_bytes(const DecodeChain& c) { return chain::Workspace(c).bytes; }

bool decode_chain_supports(const DecodeChain& c) {
  const auto fits = [&](const W4Weights& w) {
    return w.n > 0 && w.k > 0 && w.n % 16 == 0 && w.k % 16 == 0 && (w.n + 63) / 64 <= chain::kMaxRowBlocks &&
           chain::groups_per_unit(w) == chain::groups_per_unit(c.o);
  };
  if (!fits(c.o) || !fits(c.gate_up) || !fits(c.down) || (c.qkv.n > 0 && !fits(c.qkv))) return false;
  const long long quad_bytes = 16LL * kChainMaxTokens * ((c.down.n + 63) / 64) * 16;
  return c.o.n == c.down.n && c.gate_up.k == c.down.n && c.gate_up.n == 2 * c.down.k && c.down.k % 16 == 0 &&
         (c.qkv.n == 0 || c.qkv.k == c.down.n) && (c.peers.ranks == 1 || quad_bytes <= kQuadBytes);
}

cudaError_t decode_chain(const DecodeChain& c, cudaStream_t stream) {
  using chain::Layout;
  using chain::kSplit;
  if (!decode_chain_supports(c) || c.m < 1 || c.m > kChainMaxTokens) return cudaErrorInvalidValue;
  const bool small_groups = chain::groups_per_unit(c.o) == 4;
  if (c.m <= 8)
    return small_groups ? chain::start<Layout<4, 1, kSplit>>(c, stream) : chain::start<Layout<1, 1, kSplit>>(c, stream);
  return small_groups ? chain::start<Layout<4, 2, kSplit>>(c, stream) : chain::start<Layout<1, 2, kSplit>>(c, stream);
}

cudaError_t load_decode_chain() {
  using chain::Layout;
  using chain::kSplit;
  for (const void* kernel : {reinterpret_cast<const void*>(&chain::decode_chain_kernel<Layout<1, 1, kSplit>>),
                             reinterpret_cast<const void*>(&chain::decode_chain_kernel<Layout<4, 1, kSplit>>),
                             reinterpret_cast<const void*>(&chain::decode_chain_kernel<Layout<1, 2, kSplit>>),
                             reinterpret_cast<const void*>(&chain::decode_chain_kernel<Layout<4, 2, kSplit>>)}) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace qwenbench::kernels
