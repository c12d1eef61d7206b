// The exchange of all_reduce.h inside a kernel: take_turn(), send(), end_turn(), receive(). Units are 16-byte vectors
// of a slot, or single words.
#pragma once

#include "kernels/all_reduce.h"
#include "kernels/launch.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {

// Peers write while we read: relaxed accesses of system scope, past the first-level cache. Each word is judged by
// itself, so nothing need be ordered.
__device__ __forceinline__ void load_shared(const uint4* from, uint4& value) {
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
}
__device__ __forceinline__ void load_shared(const unsigned* from, unsigned& value) {
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from));
}
__device__ __forceinline__ void store_shared(uint4* to, uint4 value) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}
__device__ __forceinline__ void store_shared(unsigned* to, unsigned value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ __forceinline__ bool has_arrived(unsigned word) { return word != kEmptyWord; }
__device__ __forceinline__ bool has_arrived(const uint4& v) {
  return has_arrived(v.x) && has_arrived(v.y) && has_arrived(v.z) && has_arrived(v.w);
}

__device__ __forceinline__ unsigned not_empty(unsigned word) { return word == kEmptyWord ? 0x7fff7fffu : word; }
__device__ __forceinline__ uint4 not_empty(const uint4& v) {
  return make_uint4(not_empty(v.x), not_empty(v.y), not_empty(v.z), not_empty(v.w));
}

__device__ __forceinline__ unsigned long long global_time_ns() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

/// From its making, after wait_for_previous(), to stop(): what a rank spends in a collective, judged by its block 0.
class Stopwatch {
 public:
  __device__ __forceinline__ Stopwatch() : begin_(is_mine() ? global_time_ns() : 0) {}
  __device__ __forceinline__ void stop(const PeerExchange& x) const {
    if (is_mine()) atomicAdd(&x.state->nanoseconds, global_time_ns() - begin_);
  }

 private:
  __device__ static bool is_mine() { return blockIdx.x == 0 && threadIdx.x == 0; }
  unsigned long long begin_;
};

/// What the state said when this kernel began.
struct Turn {
  unsigned buffer, previous_bytes;
};

/// After wait_for_previous().
__device__ __forceinline__ Turn take_turn(const PeerExchange& x) {
  // Past the first-level cache: this block may have started before the kernel that wrote it had ended.
  const uint4 state = __ldcg(reinterpret_cast<const uint4*>(x.state));
  return {state.x, state.y};
}

/// Where `to` receives what `from` sends.
template <class Unit>
__device__ __forceinline__ Unit* slot(const PeerExchange& x, unsigned buffer, int to, int from) {
  return reinterpret_cast<Unit*>(x.staging[to] + (static_cast<long long>(buffer) * x.ranks + from) * x.slot_bytes);
}

template <class Unit>
__device__ __forceinline__ void send(const PeerExchange& x, const Turn& turn, int to, long long at, const Unit& value) {
  store_shared(slot<Unit>(x, turn.buffer, to, x.rank) + at, not_empty(value));
}

template <class Unit>
__device__ __forceinline__ void send_to_all(const PeerExchange& x, const Turn& turn, long long at, const Unit& value) {
  const Unit sent = not_empty(value);
  for (int to = 0; to < x.ranks; ++to) {
    if (to != x.rank) store_shared(slot<Unit>(x, turn.buffer, to, x.rank) + at, sent);
  }
}

/// The rare part of waiting: true where there is no more use in it.
inline __device__ __noinline__ bool gives_up(const PeerExchange& x, unsigned long long& since) {
  unsigned aborted = 0;
  load_shared(x.abort, aborted);
  const unsigned long long now = global_time_ns();
  if (since == 0) since = now;
  if (aborted) {
    store_shared(x.gave_up + static_cast<int>(GaveUp::kAborted), 1u);
    return true;
  }
  if (now - since <= x.time_out_ns) return false;
  store_shared(x.gave_up + static_cast<int>(GaveUp::kTimeOut), 1u);
  __threadfence_system();     // whoever sees the abort sees its reason
  store_shared(x.abort, 1u);  // the others need not wait as long
  return true;
}

/// `value` is a first look at `from`; waits until it is there. What is left where a wait was given up are NaNs.
template <class Unit>
__device__ __forceinline__ void wait_for(const PeerExchange& x, const Unit* from, Unit& value) {
  constexpr unsigned kSpins = 1024;  // about half a millisecond
  unsigned long long since = 0;
  for (unsigned spin = 1; !has_arrived(value); ++spin) {
    load_shared(from, value);
    if (spin % kSpins == 0 && !has_arrived(value) && gives_up(x, since)) return;
  }
}

template <class Unit>
__device__ __forceinline__ Unit receive(const PeerExchange& x, const Turn& turn, int from, long long at) {
  const Unit* address = slot<Unit>(x, turn.buffer, x.rank, from) + at;
  Unit value;
  load_shared(address, value);
  wait_for(x, address, value);
  return value;
}

/// Between the first sends of a block and its first receive, by all its threads: empties the buffer of the call before,
/// and has the last block that comes here hand the turn on. `bytes` of each slot are in use in this call.
__device__ __forceinline__ void end_turn(const PeerExchange& x, const Turn& turn, long long bytes) {
  const unsigned emptied = (turn.buffer + kExchangeBuffers - 1) % kExchangeBuffers;
  const int stride = gridDim.x * blockDim.x, begin = blockIdx.x * blockDim.x + threadIdx.x;
  const int count = static_cast<int>(turn.previous_bytes / sizeof(uint4));
  for (int from = 0; from < x.ranks; ++from) {
    if (from == x.rank) continue;
    uint4* const mine = slot<uint4>(x, emptied, x.rank, from);
    for (int i = begin; i < count; i += stride) mine[i] = make_uint4(kEmptyWord, kEmptyWord, kEmptyWord, kEmptyWord);
  }
  __syncthreads();  // all threads of the block have used what take_turn() read
  if (threadIdx.x != 0) return;
  if (gridDim.x > 1 && atomicAdd(&x.state->arrived, 1u) != gridDim.x - 1) return;
  *reinterpret_cast<uint4*>(x.state) =
      make_uint4((turn.buffer + 1) % kExchangeBuffers, static_cast<unsigned>(bytes), 0, 0);
}

/// The sum over ranks of one vector, in rank order. kRanks is their number, or kMaxRanks for any.
template <int kRanks>
__device__ __forceinline__ void sum_over_ranks(const PeerExchange& x, const Turn& turn, long long at, const uint4& mine,
                                               float (&sum)[8]) {
  const int ranks = kRanks == kMaxRanks ? x.ranks : kRanks;
  uint4 part[kRanks];
  // All first looks are under way before the first of them is waited for.
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    part[r] = mine;
    if (r < ranks && r != x.rank) load_shared(slot<uint4>(x, turn.buffer, x.rank, r) + at, part[r]);
  }
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    if (r >= ranks) continue;
    if (r != x.rank) wait_for(x, slot<uint4>(x, turn.buffer, x.rank, r) + at, part[r]);
    float value[8];
    unpack(*reinterpret_cast<const Bf16x8*>(&part[r]), value);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = r == 0 ? value[i] : sum[i] + value[i];
  }
}

/// Blocks for `items` units of work of `threads` each, evenly loaded, within the limit.
inline int exchange_blocks(const PeerExchange& x, long long items, int threads) {
  const long long limit = x.max_threads > threads ? x.max_threads / threads : 1;
  const long long each = (items + limit - 1) / limit;
  return static_cast<int>((items + each - 1) / each);
}

}  // namespace qwenbench::kernels
