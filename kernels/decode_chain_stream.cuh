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
    work.for_my_pieces([&](int tile, int begin, int end) {
      const int blocks = min(kRowWarps, work.row_blocks - tile * kRowWarps);
      // Row blocks of a tile lie side by side, unit after unit (w4_block).
      const long long first = static_cast<long long>(tile) * kRowWarps * work.units + begin * blocks;
      const unsigned char* codes = work.codes + first * kW4UnitCodes;
      const unsigned char* groups = work.groups + first * kGroupBytes;
      for (int at = begin; at < end; ++at) {
        // More at once would not come sooner, but would make the products' own traffic wait behind it.
        const int allowed = has_completed(shared.product_there + p * 8, 0) ? call.in_flight : call.in_flight_early;
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
    });
  }
  // What comes next may start before this kernel ends, but not before the one in front of it has (launch.h). Its blocks
  // must not take the room that another rank's chain, which this one waits for, still needs.
  wait_for_previous_kernel();
  if (call.peers.ranks == 1 || call.peers.overlap_next) allow_next_kernel();
  if (call.after_bytes > 0) {
    const long long first = static_cast<long long>(call.after_units) * blockIdx.x / gridDim.x;
    prefetch_bulk(call.after + first * (kRowWarps * kW4UnitCodes), call.after_bytes, lane);
  }
}

__device__ __forceinline__ void wait_for_product(const Call& call, int product) {
  if (threadIdx.x % 32 == 0) {
    const unsigned all = static_cast<unsigned>(call.work[product].row_blocks * ((call.m + 1) / 2));
    while (load_acquire(&call.counters->done[product]) < all) {
    }
  }
  __syncwarp();
}

/// A warp that brings tokens: the 8 from tile * 8 on of every stage, a product at a time.
template <class L>
__device__ __forceinline__ void bring_tokens(const Call& call, const Shared<L>& shared, int tile) {
  constexpr int kPieces = kUnitK / 8, kAtOnce = 32 / kPieces;  // 16 bytes a lane, two tokens at once
  const int lane = threadIdx.x % 32, token = tile * 8 + lane / kPieces, piece = lane % kPieces;
  const int count = call.m - token;  // copies i with kAtOnce * i < count are of tokens that exist
  const std::uint32_t place = shared.stage(0) + L::kWeightBytes + token * kTokenStride + piece * 16;
  Slot slot;
  wait_for_previous_kernel();
  for (int p = 0; p < call.products; ++p) {
    const Work& work = call.work[p];
    const long long step = static_cast<long long>(work.k) * kAtOnce;
    const __nv_bfloat16* row = work.x + static_cast<long long>(token) * work.k;
    if (p > 0) wait_for_product(call, p - 1);
    if (lane == 0 && tile == 0) arrive(shared.product_there + p * 8);
    work.for_my_pieces([&](int, int begin, int end) {
      int column = begin * kUnitK + piece * 8;
      for (int at = begin; at < end; ++at) {
        const bool inside = column < work.k;  // zeros past the last column
        const __nv_bfloat16* from = row + (inside ? column : 0);
        const std::uint32_t to = place + slot.index * shared.stage_bytes;
        wait_parity(shared.room + slot.index * 8, slot.parity ^ 1);
#pragma unroll
        for (int i = 0; i < 8 / kAtOnce; ++i)
          if (i * kAtOnce < count) cp_async16(to + i * kAtOnce * kTokenStride, from + i * step, inside);
        arrive_after_copies(shared.tokens + slot.index * 8);
        __syncwarp();  // no lane falls behind by two uses of a slot
        slot.advance(1, call.stages);
        column += kUnitK;
      }
    });
  }
}

}  // namespace qwenbench::kernels::chain
