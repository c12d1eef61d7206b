// A warp takes 16 tokens at a time. K is the 16-row operand of S^T = K Q^T and V^T that of O^T = V^T P^T; the query
// heads of a KV head are the 8 columns. Each warp has its own part of a ring in shared memory, so the main loop needs
// no barrier. A copy instruction of a warp takes 512 bytes that lie one after another, in whole lines; in shared memory
// the 16-byte pieces of a row are exchanged (piece ^ row % 8), so that neither copies nor loads of fragments meet in a
// bank.
#include <algorithm>

#include "kernels/attention_device.cuh"
#include "kernels/decode_attention.h"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace {

using namespace device;

constexpr int kTileTokens = 16;
constexpr int kLookAhead = 32;  // tiles whose place in the cache is looked up at once, one a lane
constexpr int kNewest = 32;     // flag of a tile that holds a sequence's newest token
constexpr int kMaxGroup = 16;
constexpr int kMinTiles = 8;              // of a thread block: fewer are not worth another part to combine
constexpr int kPairs = 8 * kHeadDim / 2;  // of outputs, of 8 queries
constexpr int kPartFloats = kMaxGroup * (kHeadDim + 2);  // unnormalised outputs, maxima, sums

template <KvDtype kDtype>
struct Ring {
  static constexpr bool kFp8 = kDtype == KvDtype::kFp8E4M3;
  static constexpr int kRowBytes = kFp8 ? kHeadDim : 2 * kHeadDim;
  static constexpr int kTileBytes = kTileTokens * kRowBytes;
  static constexpr int kPieces = kTileBytes / 512;  // of 16 bytes a lane, of K and of V each
  static constexpr int kRowPieces = kRowBytes / 16, kRowsAtOnce = 32 / kRowPieces;
  static constexpr int kWarps = kFp8 ? 16 : 12, kThreads = 32 * kWarps;
  static constexpr int kStages = kFp8 ? 3 : 2;
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kBytes = kWarps * kStages * kStageBytes;
};

/// Sizes of a launch that host and device agree on.
struct Shape {
  int group;       // query heads of a KV head
  int log2_block;  // of the cache's block_size
  int counters;    // ints at the start of the workspace, a multiple of 64
};

/// Which tiles a thread block takes: all sequences' tiles in the order (sequence, KV head, tile), cut into equal
/// slices.
struct Slices {
  int total, blocks;
  __device__ int begin(int block) const { return static_cast<int>(static_cast<std::int64_t>(total) * block / blocks); }
  __device__ int owner(int tile) const {
    return static_cast<int>(((static_cast<std::int64_t>(tile) + 1) * blocks - 1) / total);
  }
};

/// What a thread block keeps of the batch in shared memory.
struct Sequences {
  int* tiles_before;  // [num_seqs + 1] tiles of one KV head of the sequences before s
  int* length;        // [num_seqs] 0: not computed here
  int* first_row;     // [num_seqs]
  int* active;        // number of sequences that have any tiles

  static constexpr int bytes(int num_seqs) { return (3 * num_seqs + 2) * static_cast<int>(sizeof(int)); }
  __device__ Sequences(char* shared, int num_seqs)
      : tiles_before(reinterpret_cast<int*>(shared)),
        length(tiles_before + num_seqs + 1),
        first_row(length + num_seqs),
        active(first_row + num_seqs) {}

  /// Called by the first warp.
  __device__ void load(const PagedBatch& batch) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0, count = 0;
    for (int first = 0; first < batch.num_seqs; first += 32) {
      const int s = first + lane;
      int sum = 0;
      if (s < batch.num_seqs) {
        const int rows = batch.num_rows[s], tokens = batch.kv_length[s], row = batch.first_row[s];
        length[s] = rows == 1 ? tokens : 0;
        first_row[s] = row;
        sum = rows == 1 ? (tokens + kTileTokens - 1) / kTileTokens : 0;
      }
      count += __popc(__ballot_sync(kAllLanes, sum > 0));
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, sum, step);
        if (lane >= step) sum += other;
      }
      if (s < batch.num_seqs) tiles_before[s + 1] = before + sum;
      before += __shfl_sync(kAllLanes, sum, 31);
    }
    if (lane == 0) {
      tiles_before[0] = 0;
      *active = count;
    }
  }
};

/// A sequence's KV head, and its tiles [begin, end) in the order of Slices.
struct Item {
  int sequence, kv_head, begin, end;
};

__device__ inline Item find_item(const int* tiles_before, int num_seqs, int kv_heads, int tile) {
  int low = 0, high = num_seqs;  // the last sequence that begins at or before the tile
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (tiles_before[middle] * kv_heads <= tile)
      low = middle;
    else
      high = middle;
  }
  const int count = tiles_before[low + 1] - tiles_before[low], start = tiles_before[low] * kv_heads;
  const int head = (tile - start) / count;
  return {low, head, start + head * count, start + (head + 1) * count};
}

/// Where the next tiles of a warp lie: one tile a lane, looked up ahead of time.
template <int kWarps>
struct TileFinder {
  const DecodeAttention& op;
  const Sequences& sequences;
  int log2_tiles;                 // tiles of a block of the cache and one head
  int first, end;                 // tiles first, first + kWarps, ... < end
  int block, within, next_valid;  // of the next kLookAhead tiles
  std::int64_t place = 0;         // of the current ones, in tiles from the start of the layer
  int valid = 0;                  // tokens of the tile that exist, perhaps with kNewest

  __device__ TileFinder(const DecodeAttention& op, const Sequences& sequences, int log2_tiles, int first, int end)
      : op(op), sequences(sequences), log2_tiles(log2_tiles), first(first), end(end) {
    look_up(0);
  }

  __device__ void look_up(int n) {
    const int tile = first + (n + static_cast<int>(threadIdx.x) % 32) * kWarps;
    block = within = next_valid = 0;
    if (tile >= end) return;
    const Item item = find_item(sequences.tiles_before, op.batch.num_seqs, op.cache.kv_heads, tile);
    const int at = tile - item.begin;
    next_valid = min(kTileTokens, sequences.length[item.sequence] - at * kTileTokens);
    if (tile == item.end - 1) next_valid |= kNewest;
    block = op.batch.block_table[static_cast<std::int64_t>(item.sequence) * op.batch.max_blocks + (at >> log2_tiles)];
    within = (item.kv_head << log2_tiles) + (at & ((1 << log2_tiles) - 1));
  }

  /// Call with n = 0, 1, 2, ...
  __device__ void find(int n, std::int64_t& tile_place, int& tile_valid) {
    if (n % kLookAhead == 0) {
      place = static_cast<std::int64_t>(block) * (op.cache.kv_heads << log2_tiles) + within;
      valid = next_valid;
      look_up(n + kLookAhead);
    }
    tile_place = __shfl_sync(kAllLanes, place, n % kLookAhead);
    tile_valid = __shfl_sync(kAllLanes, valid, n % kLookAhead);
  }
};

/// Copies a tile into a stage of the ring.
template <KvDtype kDtype>
__device__ inline void copy_tile(const KvLayer& cache, std::int64_t place, int valid, unsigned stage) {
  using R = Ring<kDtype>;
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / R::kRowPieces, piece = lane % R::kRowPieces;
  const auto* k = static_cast<const char*>(cache.k) + place * R::kTileBytes + lane * 16;
  const auto* v = static_cast<const char*>(cache.v) + place * R::kTileBytes + lane * 16;
  const unsigned to = stage + row * R::kRowBytes + (piece ^ row) * 16;
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p)
    copy16((to ^ (p * R::kRowsAtOnce % 8 * 16)) + p * 512, k + p * 512, p * R::kRowsAtOnce + row < valid);
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p)
    copy16((to ^ (p * R::kRowsAtOnce % 8 * 16)) + p * 512 + R::kTileBytes, v + p * 512,
           p * R::kRowsAtOnce + row < valid);
}

/// Running softmax of 8 * kColumns queries over the tokens that a warp has met.
/// kCodes: queries and exponentials are rounded to E4M3.
template <KvDtype kDtype, int kColumns, bool kCodes>
struct Accumulator {
  using R = Ring<kDtype>;
  static constexpr bool kHalf = R::kFp8;  // E4M3 is exact in fp16, whose products are finer than those of bf16
  unsigned q[kColumns][8][2];             // Q^T fragments
  static constexpr float kSlack = kCodes ? 0 : kMaximumSlack;
  float per_code;              // of exponentials, kCodes: 1 / prob_scale
  float factor;                // of the raw scores, log2 e included
  float out[kColumns][8][4];   // O^T fragments
  float maximum[kColumns][2];  // of queries 2t, 2t + 1: reference of the exponents
  float sum[kColumns][2];      // over this lane's tokens g, g + 8

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int m = 0; m < 8; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[c][m][i] = 0;
      maximum[c][0] = maximum[c][1] = kNoMaximum;
      sum[c][0] = sum[c][1] = 0;
    }
  }

  /// The p-th piece of a row of K that lane t of its token multiplies; the order of dims within a product is free.
  __device__ static int piece_of(int t, int p) { return 2 * t + p % 2 + p / 2 * 8; }

  /// rows: the group's first query head. FP8: Q becomes fp16, times a power of two that keeps it in range.
  __device__ void load_queries(const __nv_bfloat16* rows, int group, float k_scale, float q_scale) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int s = 0; s < 8; ++s) {
        const int dim = R::kFp8 ? piece_of(t, s / 4) * 16 + 4 * (s % 4) : piece_of(t, s / 2) * 8 + 4 * (s % 2);
        const int query = 8 * c + g;
        uint2 v = make_uint2(0, 0);
        if (query < group) v = *reinterpret_cast<const uint2*>(rows + query * kHeadDim + dim);
        q[c][s][0] = v.x;
        q[c][s][1] = v.y;
      }
    factor = kLog2E * 0.08838834764831845f;  // 1 / sqrt(128)
    if constexpr (kCodes) {
      factor *= k_scale * q_scale;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            q[c][s][i] = halves_of_e4m3(
                e4m3_of(__fdiv_rn(bf16_low(q[c][s][i]), q_scale), __fdiv_rn(bf16_high(q[c][s][i]), q_scale)));
    } else if constexpr (R::kFp8) {
      float largest = 0;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            largest = fmaxf(largest, fmaxf(fabsf(bf16_low(q[c][s][i])), fabsf(bf16_high(q[c][s][i]))));
#pragma unroll
      for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
      const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
      const int shift = exponent == 128 ? 0 : min(14 - exponent, 126);
      const float up = __uint_as_float(static_cast<unsigned>(127 + shift) << 23);
      factor *= k_scale * __uint_as_float(static_cast<unsigned>(127 - shift) << 23);
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i) q[c][s][i] = pack<true>(bf16_low(q[c][s][i]) * up, bf16_high(q[c][s][i]) * up);
    }
  }

  __device__ static unsigned word(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

  __device__ void add_scores(unsigned stage, float (&score)[kColumns][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const unsigned row = stage + g * R::kRowBytes + (piece_of(t, 0) ^ g) * 16;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) score[c][i] = 0;
#pragma unroll
    for (int p = 0; p < R::kPieces / 2; ++p) {
      const unsigned at = (row ^ (p % 2 * 16)) + p / 2 * 128;
      const uint4 low = load_shared16(at), high = load_shared16(at + 8 * R::kRowBytes);
      if constexpr (R::kFp8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const unsigned a[4] = {halves_of_e4m3(word(low, i)), halves_of_e4m3(word(high, i)),
                                 halves_of_e4m3(word(low, i) >> 16), halves_of_e4m3(word(high, i) >> 16)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(score[c], a, q[c][4 * p + i][0], q[c][4 * p + i][1]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const unsigned a[4] = {word(low, 2 * i), word(high, 2 * i), word(low, 2 * i + 1), word(high, 2 * i + 1)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(score[c], a, q[c][2 * p + i][0], q[c][2 * p + i][1]);
        }
      }
    }
  }

  /// Raises the references where a score exceeds them by far, and rescales what was summed.
  __device__ void raise_maximum(const float (&score)[kColumns][4]) {
    bool far = false;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j) far |= fmaxf(score[c][j], score[c][j + 2]) * factor > maximum[c][j] + kSlack;
    if (!__any_sync(kAllLanes, far)) return;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float top = fmaxf(score[c][j], score[c][j + 2]) * factor;
#pragma unroll
        for (int step = 4; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
        top = fmaxf(top, maximum[c][j]);
        const float shrink = exp2_fast(maximum[c][j] - top);
        maximum[c][j] = top;
        sum[c][j] *= shrink;
#pragma unroll
        for (int m = 0; m < 8; ++m) {
          out[c][m][j] *= shrink;
          out[c][m][j + 2] *= shrink;
        }
      }
  }

  /// valid: tokens of the tile that exist; the others are zero in the stage.
  __device__ void add_tile(unsigned stage, int valid) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    float score[kColumns][4];
    add_scores(stage, score);
    if (valid < kTileTokens) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (g + 8 * (i / 2) >= valid) score[c][i] = -INFINITY;
    }
    raise_maximum(score);
    unsigned p[kColumns][2];  // P^T fragments
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[c][i] = exp2_fast(fmaf(score[c][i], factor, -maximum[c][i % 2]));
        sum[c][i % 2] += score[c][i];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
        p[c][i] = transpose(kCodes ? halves_of_e4m3(e4m3_of(score[c][2 * i] * per_code, score[c][2 * i + 1] * per_code))
                                   : pack<kHalf>(score[c][2 * i], score[c][2 * i + 1]));
    }
    add_values(stage + R::kTileBytes, p);
  }

  __device__ void add_values(unsigned stage, const unsigned (&p)[kColumns][2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane % 8, matrix = lane / 8;
    if constexpr (R::kFp8) {  // an element of a matrix is two codes, of dims 2g and 2g + 1: rows g and g + 8 of a
                              // product
      const unsigned base = stage + (matrix % 2 * 8 + row) * R::kRowBytes + (matrix / 2 ^ row) * 16;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        unsigned v[4];
        load_matrices_transposed(v, base ^ (j * 32));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const unsigned x = __byte_perm(v[2 * h], 0, 0x3120), y = __byte_perm(v[2 * h + 1], 0, 0x3120);
          const unsigned a[4] = {halves_of_e4m3(x), halves_of_e4m3(x >> 16), halves_of_e4m3(y),
                                 halves_of_e4m3(y >> 16)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][2 * j + h], a, p[c][0], p[c][1]);
        }
      }
    } else {
      const unsigned base = stage + (matrix / 2 * 8 + row) * R::kRowBytes + (matrix % 2 ^ row) * 16;
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        unsigned a[4];
        load_matrices_transposed(a, base ^ (m * 32));
#pragma unroll
        for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][m], a, p[c][0], p[c][1]);
      }
    }
  }

  __device__ void sum_over_lanes() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum[c][j] += __shfl_xor_sync(kAllLanes, sum[c][j], step);
  }

  /// Writes outputs of a column of queries as pairs of dims (see Pair): [m][j][lane].
  __device__ void save(float2* pairs, int c) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int m = 0; m < 8; ++m)
#pragma unroll
      for (int j = 0; j < 2; ++j) pairs[(2 * m + j) * 32 + lane] = make_float2(out[c][m][j], out[c][m][j + 2]);
  }
};

/// The place of a pair of outputs as Accumulator::save() writes them: dims dim and dim + kStep.
template <KvDtype kDtype>
struct Pair {
  static constexpr int kStep = kDtype == KvDtype::kFp8E4M3 ? 1 : 8;
  int query, dim;  // query within its column of 8
  __device__ explicit Pair(int index) {
    const int lane = index % 32, j = index / 32 % 2, m = index / 64;
    query = lane % 4 * 2 + j;
    dim = 16 * m + lane / 4 * (kStep == 1 ? 2 : 1);
  }
};

/// A part of the softmax of one query and two dims.
struct Part {
  float2 out = {0, 0};
  float maximum = kNoMaximum, sum = 0;
};

/// Adds up n parts: load(i, ends, out) reads the maximum and sum, and the outputs, of the i-th.
template <int kBatch, class Load>
__device__ inline Part add_up(int n, const Load& load) {
  Part total;
  for (int first = 0; first < n; first += kBatch) {
    float2 ends[kBatch], out[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      ends[i] = make_float2(kNoMaximum, 0);
      out[i] = make_float2(0, 0);
      if (first + i < n) load(first + i, ends[i], out[i]);
    }
    float top = total.maximum;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) top = fmaxf(top, ends[i].x);
    const float shrink = exp2_fast(total.maximum - top);
    total.maximum = top;
    total.sum *= shrink;
    total.out.x *= shrink;
    total.out.y *= shrink;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const float weight = exp2_fast(ends[i].x - top);
      total.sum += ends[i].y * weight;
      total.out.x += out[i].x * weight;
      total.out.y += out[i].y * weight;
    }
  }
  return total;
}

template <int kStep>
__device__ inline void store_pair(__nv_bfloat16* rows, int query, int dim, const Part& part, float v_scale) {
  const float scale = v_scale / part.sum;
  __nv_bfloat16* to = rows + query * kHeadDim + dim;
  if constexpr (kStep == 1) {
    *reinterpret_cast<unsigned*>(to) = pack<false>(part.out.x * scale, part.out.y * scale);
  } else {
    to[0] = __float2bfloat16_rn(part.out.x * scale);
    to[kStep] = __float2bfloat16_rn(part.out.y * scale);
  }
}

/// A thread block leaves at most two parts: of the item it begins in the middle of or at (slot 0), and of the one that
/// goes on after its end (slot 1).
__device__ inline float2* part_of(float2* parts, int block, int slot) {
  return parts + (static_cast<std::int64_t>(block) * 2 + slot) * (kPartFloats / 2);
}

template <KvDtype kDtype, int kColumns>
constexpr int shared_bytes(int num_seqs) {
  return Ring<kDtype>::kBytes + Sequences::bytes(num_seqs);
}

template <KvDtype kDtype, int kColumns, bool kCodes>
__global__ void __launch_bounds__(Ring<kDtype>::kThreads, 1)
    decode_attention_kernel(const __grid_constant__ DecodeAttention op, const Shape shape) {
  using R = Ring<kDtype>;
  constexpr int kWarps = R::kWarps, kThreads = R::kThreads;
  extern __shared__ __align__(1024) char shared[];
  Sequences sequences(shared + R::kBytes, op.batch.num_seqs);
  __shared__ float2 ends[kWarps][8 * kColumns];  // maximum and sum
  __shared__ const float2* saved[kWarps];
  __shared__ bool is_last;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;

  if (warp == 0) sequences.load(op.batch);
  __syncthreads();
  Slices slices;
  slices.total = sequences.tiles_before[op.batch.num_seqs] * op.cache.kv_heads;
  slices.blocks = min(static_cast<int>(gridDim.x), max(1, slices.total / kMinTiles));
  const int items = *sequences.active * op.cache.kv_heads;
  if (items > 0 && items <= slices.blocks) {
    const int whole = slices.blocks / items * items;
    if (16 * whole >= 15 * slices.blocks) slices.blocks = whole;
  }
  const int block = static_cast<int>(blockIdx.x);
  if (block >= slices.blocks || slices.total == 0) {
    wait_for_previous();  // or the launch might end before what comes before it, and the next one with it
    return;
  }
  const int begin = slices.begin(block), end = slices.begin(block + 1);

  TileFinder<kWarps> finder(op, sequences, shape.log2_block - 4, begin + warp, end);
  char* own_ring = shared + warp * R::kStages * R::kStageBytes;
  const unsigned ring = shared_address(own_ring);
  unsigned deferred = 0;
#pragma unroll
  for (int i = 0; i < R::kStages - 1; ++i) {
    std::int64_t place;
    int valid;
    finder.find(i, place, valid);
    if (valid & kNewest)
      deferred |= 1u << i;
    else if (valid > 0)
      copy_tile<kDtype>(op.cache, place, valid, ring + i * R::kStageBytes);
    commit_copies();
  }
  wait_for_previous();
  let_next_start();
  if (deferred) {
#pragma unroll
    for (int i = 0; i < R::kStages - 1; ++i)
      if (deferred >> i & 1)
        copy_tile<kDtype>(op.cache, __shfl_sync(kAllLanes, finder.place, i),
                          __shfl_sync(kAllLanes, finder.valid, i) & ~kNewest, ring + i * R::kStageBytes);
    commit_copies();
  }

  int next = R::kStages - 1, next_stage = R::kStages - 1;  // tile to copy, and where to
  Accumulator<kDtype, kColumns, kCodes> acc;
  acc.per_code = kCodes ? 1.0f / op.prob_scale : 1.0f;
  int* counters = static_cast<int*>(op.workspace);
  float2* parts = reinterpret_cast<float2*>(counters + shape.counters);
  int stage = 0, tile = begin + warp;
  for (int at = begin; at < end;) {
    const Item item = find_item(sequences.tiles_before, op.batch.num_seqs, op.cache.kv_heads, at);
    const int stop = min(item.end, end);
    const int length = sequences.length[item.sequence];
    const std::int64_t row = static_cast<std::int64_t>(sequences.first_row[item.sequence]) * op.heads;
    const std::int64_t offset = (row + item.kv_head * shape.group) * kHeadDim;
    acc.clear();
    if (tile < stop)
      acc.load_queries(static_cast<const __nv_bfloat16*>(op.q) + offset, shape.group,
                       R::kFp8 ? op.cache.k_scale[item.kv_head] : 1.0f, kCodes ? op.q_scale[item.kv_head] : 1.0f);
    if (deferred) {
      wait_copies<0>();  // the copies above are one group more than the loop counts
      deferred = 0;
    }
    for (; tile < stop; tile += kWarps) {
      std::int64_t place;
      int valid;
      finder.find(next, place, valid);
      __syncwarp();  // all lanes have read what was in the stage
      if (valid > 0) copy_tile<kDtype>(op.cache, place, valid & ~kNewest, ring + next_stage * R::kStageBytes);
      commit_copies();
      ++next;
      next_stage = next_stage + 1 == R::kStages ? 0 : next_stage + 1;
      wait_copies<R::kStages - 1>();
      __syncwarp();
      acc.add_tile(ring + stage * R::kStageBytes, min(kTileTokens, length - (tile - item.begin) * kTileTokens));
      stage = stage + 1 == R::kStages ? 0 : stage + 1;
    }

    // The warps' sums lie in the stages that are neither read nor copied to.
    auto* own = reinterpret_cast<float2*>(own_ring + next_stage * R::kStageBytes);
    if (lane == 0) saved[warp] = own;
    acc.sum_over_lanes();
    __syncwarp();
    if (lane < 4) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int j = 0; j < 2; ++j) ends[warp][8 * c + 2 * lane + j] = make_float2(acc.maximum[c][j], acc.sum[c][j]);
    }
    const int first_warp = (at - begin) % kWarps, warps = min(kWarps, stop - at);
    const bool complete = item.begin >= begin && item.end <= end;
    const float v_scale = (R::kFp8 ? op.cache.v_scale[item.kv_head] : 1.0f) * (kCodes ? op.prob_scale : 1.0f);
    __nv_bfloat16* rows = static_cast<__nv_bfloat16*>(op.out) + offset;
    float2* part = part_of(parts, block, begin >= item.begin ? 0 : 1);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      acc.save(own, c);
      __syncthreads();
      for (int i = thread; i < kPairs; i += kThreads) {
        const Pair<kDtype> pair(i);
        const int query = 8 * c + pair.query;
        const Part sum = add_up<4>(warps, [&](int n, float2& e, float2& out) {
          const int w = first_warp + n < kWarps ? first_warp + n : first_warp + n - kWarps;
          e = ends[w][query];
          out = saved[w][i];
        });
        if (query >= shape.group) continue;
        if (complete) {
          store_pair<Pair<kDtype>::kStep>(rows, query, pair.dim, sum, v_scale);
        } else {
          part[c * kPairs + i] = sum.out;
          if (pair.dim == 0) part[kMaxGroup * kHeadDim / 2 + query] = make_float2(sum.maximum, sum.sum);
        }
      }
      __syncthreads();
    }
    if (!complete) {
      const int first = slices.owner(item.begin), last = slices.owner(item.end - 1);
      if (thread == 0) {
        __threadfence();
        int* counter = counters + item.sequence * op.cache.kv_heads + item.kv_head;
        is_last = atomicAdd(counter, 1) == last - first;
        if (is_last) *counter = 0;
        __threadfence();
      }
      __syncthreads();
      if (is_last) {
        const int first_slot = slices.begin(first) >= item.begin ? 0 : 1;  // the others begin within the item
        for (int i = thread; i < kColumns * kPairs; i += kThreads) {
          const Pair<kDtype> pair(i % kPairs);
          const int query = i / kPairs * 8 + pair.query;
          if (query >= shape.group) continue;
          const Part sum = add_up<8>(last - first + 1, [&](int n, float2& e, float2& out) {
            const float2* from = part_of(parts, first + n, n == 0 ? first_slot : 0);
            e = __ldcg(from + kMaxGroup * kHeadDim / 2 + query);
            out = __ldcg(from + i);
          });
          store_pair<Pair<kDtype>::kStep>(rows, query, pair.dim, sum, v_scale);
        }
      }
    }
    at = stop;
  }
}

int multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

int counter_ints(int num_seqs, int kv_heads) { return (num_seqs * kv_heads + 63) / 64 * 64; }

template <KvDtype kDtype, int kColumns, bool kCodes>
cudaError_t start(const DecodeAttention& op, const Shape& shape, cudaStream_t stream) {
  const int bytes = shared_bytes<kDtype, kColumns>(op.batch.num_seqs);
  const auto kernel = decode_attention_kernel<kDtype, kColumns, kCodes>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const long long tiles = static_cast<long long>(op.batch.num_seqs) * op.cache.kv_heads *
                          ((op.max_kv_length + kTileTokens - 1) / kTileTokens);
  const int grid = static_cast<int>(std::clamp<long long>(tiles / kMinTiles, 1, multiprocessors()));
  return launch(kernel, grid, Ring<kDtype>::kThreads, bytes, stream, op, shape);
}

}  // namespace

std::size_t decode_attention_workspace_bytes(int num_seqs, int, int kv_heads) {
  return counter_ints(num_seqs, kv_heads) * sizeof(int) +
         static_cast<std::size_t>(multiprocessors()) * 2 * kPartFloats * sizeof(float);
}

cudaError_t decode_attention(const DecodeAttention& op, cudaStream_t stream) {
  if (op.batch.num_seqs == 0) return cudaSuccess;
  Shape shape;
  shape.group = op.heads / op.cache.kv_heads;
  shape.counters = counter_ints(op.batch.num_seqs, op.cache.kv_heads);
  shape.log2_block = 4;
  while ((1 << shape.log2_block) < op.cache.block_size) ++shape.log2_block;
  if (shape.group < 1 || shape.group > kMaxGroup || shape.group * op.cache.kv_heads != op.heads ||
      (1 << shape.log2_block) != op.cache.block_size || op.batch.num_seqs > kMaxDecodeSequences)
    return cudaErrorInvalidValue;
  const auto start_group = [&](auto one, auto two) { return (shape.group <= 8 ? one : two)(op, shape, stream); };
  constexpr KvDtype kFp8 = KvDtype::kFp8E4M3, kBf16 = KvDtype::kBFloat16;
  if (op.q_scale) {
    if (op.cache.dtype != kFp8 || !(op.prob_scale > 0)) return cudaErrorInvalidValue;
    return start_group(start<kFp8, 1, true>, start<kFp8, 2, true>);
  }
  if (op.cache.dtype == kFp8) return start_group(start<kFp8, 1, false>, start<kFp8, 2, false>);
  return start_group(start<kBf16, 1, false>, start<kBf16, 2, false>);
}

}  // namespace qwenbench::kernels
