// The two warps of a chain's thread block that fill its ring: one brings weights, one tokens.
#pragma once

#include "kernels/decode_chain_layout.cuh"

namespace qwenbench::kernels::chain {

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
  // Blocks of the next kernel must not take the room that another rank's chain, which this one waits for, still needs.
  if (call.peers.ranks == 1 || call.peers.overlap_next) allow_next_kernel();
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
            cp_async16(place + i * kTokenStride, row + (inside ? column + static_cast<long long>(i) * work.k : 0),
                       inside);
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

}  // namespace qwenbench::kernels::chain
