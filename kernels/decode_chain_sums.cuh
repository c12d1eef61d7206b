// The warps of a chain's thread block that multiply, and those that finish the sums.
#pragma once

#include "kernels/decode_chain_finisher.cuh"

namespace qwenbench::kernels::chain {

/// Calls fn(product, tile, first unit, unit behind the last) for all that this thread block multiplies, in order.
template <class Fn>
__device__ __forceinline__ void for_my_tiles(const Call& call, Fn fn) {
  for (int p = 0; p < call.products; ++p)
    call.work[p].for_my_pieces([&](int tile, int begin, int end) { fn(p, tile, begin, end); });
}

/// Where a lane's tokens lie in a stage.
template <class L>
struct TokenOffsets {
  int of_tile[L::kTokenTiles];
  __device__ explicit TokenOffsets(int m) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int tt = 0; tt < L::kTokenTiles; ++tt)
      of_tile[tt] = L::kWeightBytes + min(tt * 8 + g, m - 1) * kTokenStride + t * 16;
  }
};

/// A warp that adds up the tokens of every stage, for all that multiply: the zero points' part.
template <class L>
__device__ __forceinline__ void add_tokens(const Call& call, const Shared<L>& shared) {
  const int lane = threadIdx.x % 32;
  const TokenOffsets<L> offsets(call.m);
  Slot slot;
  for_my_tiles(call, [&](int, int, int begin, int end) {
#pragma unroll 1
    for (int at = begin; at < end; ++at) {
      wait_parity(shared.tokens + slot.index * 8, slot.parity);
      L::Format::add_tokens(shared.stages + slot.index * shared.stage_bytes, offsets.of_tile,
                            shared.totals + slot.index * L::kTotals, lane);
      arrive(shared.totals_there + slot.index * 8);
      slot.advance(1, call.stages);
    }
  });
}

/// A warp that multiplies: 64 rows of every kSplit-th stage.
template <class L>
__device__ __forceinline__ void multiply_stages(const Call& call, const Shared<L>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int block = warp % kTileBlocks, split = warp / kTileBlocks;  // a stage is spread over all schedulers
  const int g = lane / 4, t = lane % 4;
  const TokenOffsets<L> offsets(call.m);
  const auto constants = L::Format::constants();
  const int slice_sums = call.m * L::kSumStride;
  constexpr int kBlockSlices = kW4RowBlock / L::kSliceRows, kSliceTiles = L::kSliceRows / 16;
  float* sums = shared.sums + (split * L::kSlices + block * kBlockSlices) * slice_sums + g;
  float acc[4][L::kTokenTiles][4] = {};
  Slot slot;
  slot.advance(split, call.stages);
  int wait = split;  // stages until this warp's next one
  // Whether that is known to be there: looked at while this one's last products are under way. With one group a unit it
  // is waited for instead: the look keeps the compiler from mixing products and scaling, which costs more.
  constexpr bool kLooksAhead = L::kGroups == 4;
  bool there = false;
  std::uint32_t sums_parity = 1;
  for_my_tiles(call, [&](int, int, int begin, int end) {
    int at = begin + wait;
    for (; at < end; at += L::kSplit) {
      if (!there) {
        wait_parity(shared.tokens + slot.index * 8, slot.parity);
        wait_parity(shared.weights + slot.index * 8, slot.parity);
      }
      Slot next = slot;
      next.advance(L::kSplit, call.stages);
      const bool has_totals = kLooksAhead && has_completed(shared.totals_there + slot.index * 8, slot.parity);
      L::Format::template multiply<L::kTokenTiles, kTileBlocks>(
          shared.stages + slot.index * shared.stage_bytes, block, lane, offsets.of_tile, constants, acc,
          typename L::Totals{shared.totals_there + slot.index * 8, slot.parity, shared.totals + slot.index * L::kTotals,
                             has_totals},
          [&] {
            if constexpr (kLooksAhead) {
              const bool tokens = has_completed(shared.tokens + next.index * 8, next.parity);
              const bool weights = has_completed(shared.weights + next.index * 8, next.parity);
              there = tokens && weights;
            }
          });
      __syncwarp();
      if (lane == 0) arrive(shared.room + slot.index * 8);
      slot = next;
    }
    wait = at - end;
    wait_parity(shared.sums_room + block * 8, sums_parity);
    sums_parity ^= 1;
    constexpr int kStep = L::Totals::kColumns == 1 ? 2 : 1;  // one token alone: the first of a lane's two columns
#pragma unroll
    for (int tt = 0; tt < L::kTokenTiles; ++tt)
#pragma unroll
      for (int i = 0; i < 4; i += kStep) {
        const int token = tt * 8 + 2 * t + i % 2;
#pragma unroll
        for (int rt = 0; rt < 4; ++rt) {
          if (token < call.m)
            sums[rt / kSliceTiles * slice_sums + token * L::kSumStride + rt % kSliceTiles * 16 + i / 2 * 8] =
                acc[rt][tt][i] * L::Format::sum_factor(i / 2);
          acc[rt][tt][i] = 0.f;
        }
      }
    arrive(shared.sums_there + block * 8);
  });
}

/// A warp that finishes the sums of a slice of every tile, while the others go on.
///
/// Thread blocks that share a tile share its items (some tokens of a slice) too: those whose last shared tile it is,
/// item i the (i mod n)-th of the n. The others send them their parts, which are waited for
/// word by word (present()), without a counter or a fence, and cleared by who has read them: the next product's are not
/// sent before all of this one's sums are finished.
template <class L>
class SumFinisher {
  using F = Finisher<L>;

 public:
  __device__ SumFinisher(const Call& call, const Shared<L>& shared, int slice)
      : call_(call), shared_(shared), slice_(slice), finisher_{call} {}

  __device__ __forceinline__ void run() {
    wait_for_previous();
    const unsigned launch = __ldcg(&call_.counters->launches);
    finisher_.set = (launch & 1u) * call_.inputs.set;
    if (call_.peers.ranks > 1) finisher_.quad_calls = __ldcg(&call_.peers.state->quad_calls);
    clear(call_.inputs.set - finisher_.set);  // and with it the last of the counters that leave() changes are read
    say_cleared<L::kSlices>();
    std::uint32_t parity = 0;
    int product = -1;
    for_my_tiles(call_, [&](int p, int tile, int begin, int end) {
      const Work& work = call_.work[p];
      if (p != product) {
        product = p;
        wait_parity(shared_.complete + p * 8, 0);  // then so are the residual, and its squares
        if (p == kGateUp || p == kQkv) finisher_.load_factors(p == kGateUp ? 0 : 1, shared_.squares, slice_);
      }
      const Tile now = tile_of(work, tile);
      wait_parity(shared_.sums_there + slice_ * kTileBlocks / L::kSlices * 8, parity);
      parity ^= 1;
      if (now.slice < work.slices) {
        if (now.first < now.last) send(now);
        finish(now, p);
      }
      arrive(shared_.sums_room + slice_ * kTileBlocks / L::kSlices * 8);
      __syncwarp();
    });
  }

 private:
  /// This warp's slice of a tile, the thread blocks that share it, and the last of those that finish it.
  struct Tile {
    int slice, first, last, last_finisher;
    unsigned mine;  // bit i: this thread block finishes item i
    __device__ int finishers() const { return last_finisher - first + 1; }
    __device__ bool is_mine(int item) const { return (mine >> item & 1u) != 0; }
  };
  __device__ Tile tile_of(const Work& work, int tile) const {
    const int slice = tile * L::kSlices + slice_, me = static_cast<int>(blockIdx.x);
    const int begin = tile * work.units, end = begin + work.units;
    if (begin >= work.shared) return {slice, me, me, me, ~0u};
    const int last = work.owner(end - 1);
    Tile now{slice, work.owner(begin), last, work.begin(last + 1) == end ? last : last - 1, 0};
    if (me <= now.last_finisher)
      for (int item = me - now.first; item < L::kMaxItems; item += now.finishers()) now.mine |= 1u << item;
    return now;
  }

  /// This thread block's sum of an item. A lane whose token does not exist takes another one's: the warp stays
  /// together.
  __device__ __forceinline__ float4 own_sum(int item) const {
    const float* from =
        shared_.sums + (slice_ * call_.m + min(F::token(item), call_.m - 1)) * L::kSumStride + F::quad() * 4;
    float4 sum = *reinterpret_cast<const float4*>(from);
#pragma unroll
    for (int s = 1; s < L::kSplit; ++s)
      sum = sum + *reinterpret_cast<const float4*>(from + s * L::kSlices * call_.m * L::kSumStride);
    return sum;
  }

  /// A thread block's part of a tile: in slot 0 where it begins the tile, else in slot 1.
  __device__ __forceinline__ uint4* part(const Tile& tile, int block) const {
    return call_.parts + (block > tile.first ? kSlotStride : 0) + block * kBlockStride + slice_ * kSliceStride +
           threadIdx.x % 32;
  }
  static constexpr int kItemStride = 32, kSliceStride = kTokens / L::kItemTokens * kItemStride,
                       kBlockStride = L::kSlices * kSliceStride, kSlotStride = kPlaces * kBlockStride;

  __device__ __forceinline__ void send(const Tile& tile) const {
    uint4* to = part(tile, static_cast<int>(blockIdx.x));
    float4 sums[L::kMaxItems];
#pragma unroll
    for (int item = 0; item < L::kMaxItems; ++item) sums[item] = own_sum(item);
#pragma unroll
    for (int item = 0; item < L::kMaxItems; ++item) {
      if (item >= call_.items || tile.is_mine(item)) continue;
      const float4 v = sums[item];
      store_relaxed(to + item * kItemStride, present(make_uint4(__float_as_uint(v.x), __float_as_uint(v.y),
                                                                __float_as_uint(v.z), __float_as_uint(v.w))));
    }
  }

  /// sums[i] += the parts that the thread blocks from `first` on sent of item i: kCount of them, fewer at the tile's
  /// end.
  template <int kMyItems, int kCount>
  __device__ __forceinline__ void receive(const Tile& tile, int first, float4 (&sums)[F::kItems], int only) const {
    uint4 parts[kMyItems][kCount];
    const auto is_sent = [&](int i, int n) {
      return finisher_.finishes(only + i) && first + n <= tile.last && first + n != static_cast<int>(blockIdx.x);
    };
    uint4* from = part(tile, first) + finisher_.item(only) * kItemStride;
    uint4* next = part(tile, first + 1) + finisher_.item(only) * kItemStride - kBlockStride;
    const int stride = finisher_.finishes(only + 1) ? finisher_.step * kItemStride : 0;
    const auto place = [&](int i, int n) { return (n == 0 ? from : next + n * kBlockStride) + i * stride; };
    bool there;
    do {
      there = true;
#pragma unroll
      for (int i = 0; i < kMyItems; ++i)
#pragma unroll
        for (int n = 0; n < kCount; ++n)  // what is not sent is read too, somewhere within the workspace, and ignored
          parts[i][n] = load_relaxed(place(i, n));
#pragma unroll
      for (int i = 0; i < kMyItems; ++i)
#pragma unroll
        for (int n = 0; n < kCount; ++n) there = there && (is_present(parts[i][n]) || !is_sent(i, n));
    } while (!__all_sync(0xffffffffu, there));
#pragma unroll
    for (int i = 0; i < kMyItems; ++i)
#pragma unroll
      for (int n = 0; n < kCount; ++n)
        if (is_sent(i, n)) {
          const uint4 v = parts[i][n];
          sums[only + i] = sums[only + i] + make_float4(__uint_as_float(v.x), __uint_as_float(v.y),
                                                        __uint_as_float(v.z), __uint_as_float(v.w));
          store_relaxed(place(i, n), make_uint4(0, 0, 0, 0));  // before add_release(): for the next product
        }
  }

  /// Sums of the finisher's items over thread blocks: this one's part, then the others' in order.
  __device__ __forceinline__ void collect(const Tile& tile, float4 (&sums)[F::kItems]) const {
    constexpr int kAtOnce = 4;
    if (tile.last - tile.first < 3) {
      receive<2, 3>(tile, tile.first, sums, 0);
      return;
    }
#pragma unroll
    for (int i = 0; i < F::kItems; ++i) {
      if (!finisher_.finishes(i)) continue;
#pragma unroll 1
      for (int first = tile.first; first <= tile.last; first += kAtOnce) receive<1, kAtOnce>(tile, first, sums, i);
    }
  }

  __device__ __forceinline__ void finish(const Tile& tile, int product) {
    if (static_cast<int>(blockIdx.x) > tile.last_finisher) return;
    unsigned done = 0;
    finisher_.step = tile.finishers();
#pragma unroll 1
    for (finisher_.first = static_cast<int>(blockIdx.x) - tile.first; finisher_.first < call_.items;
         finisher_.first += F::kItems * finisher_.step) {
      finisher_.prefetch(product, tile.slice);
      float4 sums[F::kItems];
#pragma unroll
      for (int i = 0; i < F::kItems; ++i) {
        if (finisher_.finishes(i)) ++done;
        sums[i] = finisher_.finishes(i) ? own_sum(finisher_.item(i)) : make_float4(0, 0, 0, 0);
      }
      if (tile.first < tile.last) collect(tile, sums);
      finisher_.finish(sums, product, tile.slice);
    }
    __syncwarp();
    if (done > 0 && product + 1 < call_.products && threadIdx.x % 32 == 0)
      add_release(&call_.counters->done[product], done);
  }

  /// Clears what the last launch has written into its set of inputs, and what this one will write for attention.
  __device__ __forceinline__ void clear(long long set) const {
    const long long m = __ldcg(&call_.counters->last_m), threads = gridDim.x * (L::kSlices * 32);
#pragma unroll 1
    for (int i = 0; i < (call_.products == kProducts ? 4 : 3); ++i) {
      auto* words = reinterpret_cast<uint4*>(i == 3   ? call_.qkv_out
                                             : i == 2 ? call_.inputs.mlp + set
                                                      : call_.inputs.scaled[i] + set);
      const long long count = i == 3   ? static_cast<long long>(call_.m) * call_.work[kQkv].n
                              : i == 2 ? m * call_.intermediate
                                       : m * call_.hidden;
#pragma unroll 1
      for (long long at = (blockIdx.x * L::kSlices + slice_) * 32 + threadIdx.x % 32; at < count / 8; at += threads)
        words[at] = make_uint4(0, 0, 0, 0);
    }
    __threadfence();  // before anything that other thread blocks go by
  }

  const Call& call_;
  const Shared<L>& shared_;
  const int slice_;
  F finisher_;
};

}  // namespace qwenbench::kernels::chain
