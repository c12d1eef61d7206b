// The inner part of attention over many query rows on sm_90a. A thread block holds 128 query rows and passes 128 keys
// at a time through shared memory. One warpgroup fills rings of queries, keys and values; two others own 64 rows each
// and take turns at the matrix units: while one exponentiates, the other multiplies. Within a warpgroup the scores of
// the next keys and the sums over the last values are computed behind the exponentials, too.
#pragma once

#include "kernels/attention_device.cuh"
#include "kernels/hopper.cuh"

namespace qwenbench::kernels::device {

constexpr int kWgRows = 128, kWgKeys = 128;
constexpr int kConsumers = 256, kProducers = 128, kWgThreads = kConsumers + kProducers;
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // of a thread; 64 K in all

/// Barriers of a thread block that warps name by number; 0 is __syncthreads().
enum NamedBarrier { kFirstTurn = 1, kSecondTurn, kAllConsumers, kFirstRows, kSecondRows };

/// Matrices of 128 rows and kDim columns (rounded up to 64) in shared memory: each 64 columns are 128 swizzled rows of
/// 128 bytes.
template <int kDim>
struct WgTile {
  static constexpr int kHalves = (kDim + 63) / 64, kHalfBytes = 128 * 128, kBytes = kHalves * kHalfBytes;
  static constexpr int kSteps = (kDim + 15) / 16;  // products of 16 head dims
  static constexpr int kOctets = kDim / 8;
};

/// Slots that the producer fills and the consumers empty in turn; uses are numbered from 0.
template <int kDim>
struct Ring {
  static constexpr int kSlots = 2, kBarrierBytes = 16 * kSlots, kBytes = kSlots * WgTile<kDim>::kBytes;
  unsigned slots, barriers;  // full 0, full 1, empty 0, empty 1

  __device__ void init(int filling_arrivals) const {
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(full(i), filling_arrivals);
      init_barrier(empty(i), kConsumers / 32);
    }
  }
  __device__ unsigned slot(int use) const { return slots + use % kSlots * WgTile<kDim>::kBytes; }
  __device__ unsigned full(int use) const { return barriers + use % kSlots * 8; }
  __device__ unsigned empty(int use) const { return full(use) + 8 * kSlots; }
  __device__ void wait_full(int use) const { wait_parity(full(use), use / kSlots % 2); }
  __device__ void wait_empty(int use) const { wait_parity(empty(use), (use / kSlots + 1) % 2); }
  /// All lanes of a consumer warp.
  __device__ void release(int use) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(empty(use));
  }
};

/// What a thread block keeps in shared memory, from an address that is a multiple of 1024.
template <int kDim>
struct WgRings {
  using Ring = device::Ring<kDim>;
  static constexpr int kBytes = 3 * (Ring::kBytes + Ring::kBarrierBytes);
  Ring queries, keys, values;

  __device__ explicit WgRings(unsigned shared) : queries(at(shared, 0)), keys(at(shared, 1)), values(at(shared, 2)) {}
  static __device__ Ring at(unsigned shared, int i) {
    return {shared + i * Ring::kBytes, shared + 3 * Ring::kBytes + i * Ring::kBarrierBytes};
  }

  /// One thread, before all meet. Keys and values come from the copy engine, asked by one thread.
  __device__ void init(int query_arrivals) const {
    queries.init(query_arrivals);
    keys.init(1);
    values.init(1);
    fence_barriers();
  }
};

/// Calls copy_keys(j) and copy_values(j) for all tiles, in the order in which they are wanted.
template <class CopyKeys, class CopyValues>
__device__ inline void copy_tiles(int tiles, const CopyKeys& copy_keys, const CopyValues& copy_values) {
  copy_keys(0);
  for (int j = 1; j < tiles; ++j) {
    copy_keys(j);
    copy_values(j - 1);
  }
  copy_values(tiles - 1);
}

/// Items of work of a thread block, forwards and backwards over the grid in turn: where items get shorter, all blocks
/// get about as much.
struct Items {
  int count;
  __device__ int rounds() const { return (count + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x); }
  /// May lie beyond the last.
  __device__ int at(int round) const {
    const int grid = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    return round * grid + (round % 2 == 0 ? block : grid - 1 - block);
  }
};

/// The 64 query rows of a warpgroup. Lane (g, t) = (lane / 4, lane % 4) of warp w holds rows 16w + g and 16w + g + 8, of
/// which columns 8j + 2t, 8j + 2t + 1.
template <int kDim>
struct WgAttention {
  using Tile = WgTile<kDim>;
  static constexpr int kKeyOctets = kWgKeys / 8;

  float out[Tile::kOctets][4];
  float score[kKeyOctets][4];
  unsigned weights[kWgKeys / 16][4];  // exponentials as bf16, operands of products
  float maximum[2], sum[2];           // of the rows; sums over this lane's keys
  float shrink[2];                    // what `out` is still to be multiplied by
  bool shrinks;                       // in any row of the warp

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < Tile::kOctets; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[j][i] = 0;
    maximum[0] = maximum[1] = kNoMaximum;
    sum[0] = sum[1] = 0;
  }

  /// Starts score = Q K^T. queries: of this warpgroup's first row.
  __device__ void start_scores(unsigned queries, unsigned keys) {
    const std::uint64_t a = operand_at(queries), b = operand_at(keys);
    pin(score);
    begin_products();
    multiply_shared<false>(score, a, b);
#pragma unroll
    for (int s = 1; s < Tile::kSteps; ++s) {
      const int at = s / 4 * Tile::kHalfBytes + s % 4 * 32;
      multiply_shared<true>(score, advance(a, at), advance(b, at));
    }
    commit_products();
  }

  /// Starts out += weights V.
  __device__ void start_sums(unsigned values) {
    const std::uint64_t b = operand_at(values, Tile::kHalfBytes);
    pin(out);
    begin_products();
#pragma unroll
    for (int k = 0; k < kWgKeys / 16; ++k) multiply_registers(out, weights[k], advance(b, k * 16 * 128));
    commit_products();
  }

  /// Leaves out the keys after last[r] of the lane's two rows.
  __device__ void mask(int first_key, const int (&last)[2]) {
    const int first = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < kKeyOctets; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (first + 8 * j + i % 2 > last[i / 2]) score[j][i] = -INFINITY;
  }

  /// score becomes exp(score * factor - maximum), factor including log2 e; the sums follow. kCodes: the maximum is that
  /// of all keys so far, to which weights are rounded.
  template <bool kCodes>
  __device__ void exponentiate(float factor) {
    float top[2];
    bool far = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(score[0][2 * r], score[0][2 * r + 1]);
#pragma unroll
      for (int j = 1; j < kKeyOctets; ++j) top[r] = fmaxf(top[r], fmaxf(score[j][2 * r], score[j][2 * r + 1]));
      top[r] *= factor;
      far |= top[r] > maximum[r] + (kCodes ? 0.0f : kMaximumSlack);
    }
    shrinks = __any_sync(kAllLanes, far);
    if (shrinks) raise_maximum(top);
#pragma unroll
    for (int j = 0; j < kKeyOctets; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[j][i] = exp2_fast(fmaf(score[j][i], factor, -maximum[i / 2]));
        sum[i / 2] += score[j][i];
      }
  }

  __device__ void raise_maximum(const float (&lane_top)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = fmaxf(lane_top[r], __shfl_xor_sync(kAllLanes, lane_top[r], 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      top = fmaxf(top, maximum[r]);
      shrink[r] = exp2_fast(maximum[r] - top);
      maximum[r] = top;
      sum[r] *= shrink[r];
    }
  }

  __device__ void shrink_out() {
    if (!shrinks) return;
#pragma unroll
    for (int j = 0; j < Tile::kOctets; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[j][i] *= shrink[i / 2];
  }

  /// weights = exponentials; kCodes: e4m3(exponentials * per_code)
  template <bool kCodes>
  __device__ void round_weights(float per_code) {
#pragma unroll
    for (int k = 0; k < kWgKeys / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &score[2 * k + i / 2][i % 2 * 2];
        weights[k][i] =
            kCodes ? bf16_of_e4m3(e4m3_of(pair[0] * per_code, pair[1] * per_code)) : pack<false>(pair[0], pair[1]);
      }
  }

  /// Writes out / sum * scale as bf16 into this warp's 16 rows of a tile in shared memory.
  __device__ void write(char* rows, float scale) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[r] + __shfl_xor_sync(kAllLanes, sum[r], 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const float factor = scale / total;
#pragma unroll
      for (int j = 0; j < Tile::kOctets; ++j) {
        char* at = rows + j / 8 * Tile::kHalfBytes + swizzled(g + 8 * r, j % 8) + 4 * t;
        *reinterpret_cast<unsigned*>(at) = pack<false>(out[j][2 * r] * factor, out[j][2 * r + 1] * factor);
      }
    }
  }
};

/// Warpgroup 0 or 1 of the consumers.
__device__ inline int consumer_group() { return static_cast<int>(threadIdx.x) / 128 - kProducers / 128; }

/// Turns at starting products. The first is taken without anybody passing it.
__device__ inline void wait_turn(int group) { sync_threads(kFirstTurn + group, kConsumers); }
__device__ inline void pass_turn(int group) { arrive_threads(kFirstTurn + (group ^ 1), kConsumers); }

/// One pass over the keys by both consumers: uses `first_use` and so on of the rings. mask(j) leaves out what tile j
/// must not count; ready(values) is called before the values of the last tile are read.
template <bool kCodes, int kDim, class Mask, class Ready>
__device__ inline void attend(WgAttention<kDim>& rows, const WgRings<kDim>& rings, unsigned queries, int first_use,
                              int tiles, float factor, float per_code, const Mask& mask, const Ready& ready) {
  const int group = consumer_group();
  rows.clear();
  rings.keys.wait_full(first_use);
  rows.start_scores(queries, rings.keys.slot(first_use));
  wait_products<0>();
  pin(rows.score);
  rings.keys.release(first_use);
  mask(0);
  rows.template exponentiate<kCodes>(factor);
  rows.template round_weights<kCodes>(per_code);
#pragma unroll 1
  for (int j = 1; j < tiles; ++j) {
    const int use = first_use + j;
    rings.keys.wait_full(use);
    wait_turn(group);
    rows.start_scores(queries, rings.keys.slot(use));
    rings.values.wait_full(use - 1);
    rows.start_sums(rings.values.slot(use - 1));
    pass_turn(group);
    wait_products<1>();
    pin(rows.score);
    rings.keys.release(use);
    mask(j);
    rows.template exponentiate<kCodes>(factor);
    wait_products<0>();
    pin(rows.out);
    rings.values.release(use - 1);
    rows.shrink_out();
    rows.template round_weights<kCodes>(per_code);
  }
  const int last = first_use + tiles - 1;
  rings.values.wait_full(last);
  ready(rings.values.slot(last));
  rows.start_sums(rings.values.slot(last));
  wait_products<0>();
  pin(rows.out);
  rings.values.release(last);
}

}  // namespace qwenbench::kernels::device
