// The warps of a chain's thread block that multiply, and those that finish the sums.
#pragma once

#include "kernels/decode_chain_finisher.cuh"

namespace qwenbench::kernels::chain {

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

/// A warp that multiplies: every kSplit-th stage, 64 rows of it or half of them.
template <class L>
__device__ __forceinline__ void multiply_stages(const Call& call, const Shared<L>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row_warp = warp / (L::kSplit * L::kChunks), chunk = warp / L::kSplit % L::kChunks, split = warp % L::kSplit;
  const int g = lane / 4, t = lane % 4;
  int token_offset[L::kTokenTiles];
#pragma unroll
  for (int tt = 0; tt < L::kTokenTiles; ++tt)
    token_offset[tt] = L::kWeightBytes + min(tt * 8 + g, call.m - 1) * kTokenStride + t * 16;
  const auto constants = L::Format::constants();
  float* sums = shared.sums + (row_warp * L::kSplit + split) * call.m * L::kSumStride + chunk * 32 + g;
  float acc[L::kTiles][L::kTokenTiles][4] = {};
  Slot slot;
  slot.advance(split, call.stages);
  int wait = split;  // stages until this warp's next one
  std::uint32_t sums_parity = 1;
  for_my_tiles(call, [&](int, int, int begin, int end) {
    int at = begin + wait;
    for (; at < end; at += L::kSplit) {
      wait_parity(shared.tokens + slot.index * 8, slot.parity);
      wait_parity(shared.weights + slot.index * 8, slot.parity);
      L::Format::template multiply<L::kTokenTiles, kRowWarps, L::kTiles>(
          shared.stages + slot.index * shared.stage_bytes, row_warp, chunk, lane, token_offset, constants, acc);
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
        for (int rt = 0; rt < L::kTiles; ++rt) {
          if (token < call.m) sums[token * L::kSumStride + rt * 16 + i / 2 * 8] = acc[rt][tt][i];
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
    constexpr int kAtOnce = F::kItems > 4 ? 1 : 4;  // parts of 4 to 16 vectors are under way
#pragma unroll kAtOnce
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

}  // namespace qwenbench::kernels::chain
