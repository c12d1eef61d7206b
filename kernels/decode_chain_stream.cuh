// The warps of a chain's thread block that fill its ring: one brings weights, the others tokens.
#pragma once

#include "kernels/decode_chain_layout.cuh"

namespace qwenbench::kernels::chain {

/// By one lane of each warp that brings tokens or weights, when it has read the counters for the last time (and the
/// finishers of its block have): the last of all makes them ready for the next kernel, while sums are still finished.
template <class L>
__device__ __forceinline__ void leave(const Call& call) {
  Counters& counters = *call.counters;
  __threadfence();
  if (atomicAdd(&counters.left, 1u) != gridDim.x * (L::kTokenWarps + 1) - 1) return;
  for (unsigned& done : counters.done) done = 0;
  counters.left = 0;
  ++counters.launches;
  counters.last_m = static_cast<unsigned>(call.m);
  if (call.peers.ranks > 1) ++call.peers.state->quad_calls;
}

/// The warp that streams weights: it waits for room, and for what is on its way.
template <class L>
__device__ __forceinline__ void bring_weights(const Call& call, const Shared<L>& shared) {
  using Format = typename L::Format;
  constexpr int kGroupBytes = Format::kBlockBytes - kW4UnitCodes;
  const int lane = threadIdx.x % 32;
  const std::uint64_t policy = evict_first_policy();
  Slot slot, landing;
  int under_way = 0;
  for (int p = 0; p < call.products; ++p) {
    const Work& work = call.work[p];
    work.for_my_pieces([&](int tile, int begin, int end) {
      const int blocks = min(kTileBlocks, work.row_blocks - tile * kTileBlocks);
      // Row blocks of a tile lie side by side, unit after unit (w4_block).
      const long long first = static_cast<long long>(tile) * kTileBlocks * work.units + begin * blocks;
      const unsigned char* codes = work.codes + first * kW4UnitCodes;
      const unsigned char* groups = work.groups + first * kGroupBytes;
      for (int at = begin; at < end; ++at) {
        // More at once would not come sooner, but would make the products' own traffic wait behind it.
        const int allowed = has_completed(shared.begun + p * 8, 0) ? call.in_flight : call.in_flight_early;
        for (; under_way >= allowed; --under_way) {
          wait_parity(shared.weights + landing.index * 8, landing.parity);
          landing.advance(1, call.stages);
        }
        ++under_way;
        wait_parity(shared.room + slot.index * 8, slot.parity ^ 1);
        if (lane == 0 || !kCopyEngine) {
          const std::uint32_t there = shared.weights + slot.index * 8, to = shared.stage(slot.index);
          expect_bytes(there, blocks * Format::kBlockBytes);
          copy_bulk(to, codes, blocks * kW4UnitCodes, there, lane, 32, policy);
          copy_bulk(to + kTileBlocks * kW4UnitCodes, groups, blocks * kGroupBytes, there, lane, 32, policy);
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
  wait_for_previous();
  wait_until_cleared<L::kSlices>();
  if (call.peers.ranks == 1 || call.peers.overlap_next) let_next_start();
  if (lane == 0) leave<L>(call);
}

/// A warp that brings tokens: the 8 from tile * 8 on of every stage, a product at a time. Until all of a product's
/// input is written it looks at what has come, and asks again for what was not written yet.
template <class L>
class TokenWarp {
 public:
  __device__ TokenWarp(const Call& call, const Shared<L>& shared, int tile)
      : call_(call),
        shared_(shared),
        leads_(tile == 0 && lane() == 0),
        piece_(lane() % kPieces),
        token_(tile * 8 + lane() / kPieces),
        count_(call.m - token_),
        place_(shared.stage(0) + L::kWeightBytes + token_ * kTokenStride + piece_ * 16) {}

  __device__ __forceinline__ void run() {
    wait_for_previous();
    long long set = 0;  // of inputs, which the first product does not read: it need not wait for the number
    for (int p = 0; p < call_.products; ++p) {
      const Work& work = call_.work[p];
      if (p == 1) set = (__ldcg(&call_.counters->launches) & 1u) * call_.inputs.set;
      k_ = work.k;
      row_ = work.x + set + static_cast<long long>(token_) * k_;
      bool has_begun = false, complete = p == 0;
      const auto say = [&] {  // how far the product is
        if (leads_ && !has_begun) arrive(shared_.begun + p * 8);
        if (leads_ && complete) arrive(shared_.complete + p * 8);
        has_begun = true;
      };
      if (complete) say();
      work.for_my_pieces([&](int, int begin, int end) {
        int column = begin * kUnitK + piece_ * 8;
        int at = begin;
        while (!complete && at < end) {
          const bool is_there = bring_if_written(p, column, complete);
          if (complete || (is_there && !has_begun)) say();
          if (!is_there) continue;
          ++at;
          column += kUnitK;
        }
#pragma unroll 1
        for (; at < end; ++at, column += kUnitK) {
          wait_parity(shared_.room + slot_.index * 8, slot_.parity ^ 1);
          copy(slot_, column);
          arrive_after_copies(shared_.tokens + slot_.index * 8);
          __syncwarp();  // no lane falls behind by two uses of a slot
          slot_.advance(1, call_.stages);
        }
      });
      while (!complete) {  // finishers wait to be told
        complete = is_complete(p);
        if (complete) say();
      }
    }
    if (lane() == 0) leave<L>(call_);
  }

 private:
  static constexpr int kPieces = kUnitK / 8, kStep = 32 / kPieces;  // 16 bytes a lane, two tokens at once
  static constexpr int kCopies = 8 / kStep;                         // of a stage

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ std::uint32_t place(const Slot& slot) const { return place_ + slot.index * shared_.stage_bytes; }

  __device__ __forceinline__ bool is_complete(int product) const {
    unsigned done = 0;
    if (lane() == 0) done = load_acquire(&call_.counters->done[product - 1]);
    return __shfl_sync(0xffffffffu, done, 0) >= static_cast<unsigned>(call_.work[product - 1].slices * call_.items);
  }

  /// A stage's columns from `column` on; zeros past the last one.
  __device__ __forceinline__ void copy(const Slot& slot, int column) const {
    const bool inside = column < k_;
    const std::uint32_t to = place(slot);
    const __nv_bfloat16* from = row_ + (inside ? column : 0);
    const long long step = static_cast<long long>(k_) * kStep;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      if (i * kStep < count_) copy16_alone(to + i * kStep * kTokenStride, from + i * step, inside);
  }

  /// Whether what a stage's copies brought was written before.
  __device__ __forceinline__ bool is_written(const Slot& slot) const {
    bool all = true;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i * kStep >= count_) continue;
      const uint4 v = load_shared_words(place(slot) + i * kStep * kTokenStride);
      all = all && is_present(v);
    }
    return all;
  }

  /// Brings a stage, where all its tokens are written, which is the result. `complete`: all of the input was, before.
  __device__ __forceinline__ bool bring_if_written(int product, int column, bool& complete) {
    wait_parity(shared_.room + slot_.index * 8, slot_.parity ^ 1);
    copy(slot_, column);
    complete = is_complete(product);
    commit_copies();
    wait_copies<0>();
    if (!__all_sync(0xffffffffu, column >= k_ || is_written(slot_))) return false;
    arrive(shared_.tokens + slot_.index * 8);
    slot_.advance(1, call_.stages);
    return true;
  }

  const Call& call_;
  const Shared<L>& shared_;
  const bool leads_;
  const int piece_, token_, count_;
  const std::uint32_t place_;
  Slot slot_;
  const __nv_bfloat16* row_ = nullptr;
  int k_ = 0;
};

}  // namespace qwenbench::kernels::chain
