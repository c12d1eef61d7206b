// A warp takes 16 tokens at a time. K is the 16-row operand of S^T = K Q^T and V^T that of O^T = V^T P^T; the query
// heads of a KV head are the 8 columns. The order of head dims within a product is free, so each lane reads its
// fragments of K and V as whole 16-byte pieces, and copies them itself into its own part of a ring in shared memory:
// the ring needs no barrier.
#include <algorithm>

#include "kernels/attention_device.cuh"
#include "kernels/decode_attention.h"

namespace qwenbench::kernels {
namespace {

using namespace device;

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kTileTokens = 16;
constexpr int kLookAhead = 32;  // tiles whose place in the cache is looked up at once, one a lane
constexpr int kMinTilesPerBlock = 2 * kWarps;
constexpr int kMaxGroup = 16;
constexpr int kPartFloats = kHeadDim + 2;  // of one query: unnormalised output, maximum, sum

template <KvDtype kDtype>
struct Ring {
  static constexpr bool kFp8 = kDtype == KvDtype::kFp8E4M3;
  static constexpr int kRowBytes = kFp8 ? kHeadDim : 2 * kHeadDim;
  static constexpr int kTileBytes = kTileTokens * kRowBytes;
  static constexpr int kPieces = kTileBytes / 512;  // of 16 bytes a lane, of K and of V each
  static constexpr int kStages = kFp8 ? 4 : 2;
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

__device__ inline int active_length(const PagedBatch& batch, int s) {
  return batch.num_rows[s] == 1 ? batch.kv_length[s] : 0;
}

/// tiles_before[s]: tiles of one KV head of the sequences before s; num_seqs + 1 entries. Called by the first warp.
__device__ inline void count_tiles(const PagedBatch& batch, int* tiles_before) {
  const int lane = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int first = 0; first < batch.num_seqs; first += 32) {
    const int s = first + lane;
    int sum = s < batch.num_seqs ? (active_length(batch, s) + kTileTokens - 1) / kTileTokens : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += other;
    }
    if (s < batch.num_seqs) tiles_before[s + 1] = before + sum;
    before += __shfl_sync(kAllLanes, sum, 31);
  }
  if (lane == 0) tiles_before[0] = 0;
}

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
struct TileFinder {
  const DecodeAttention& op;
  const int* tiles_before;
  int log2_tiles;                 // tiles of a block of the cache and one head
  int first, end;                 // tiles first, first + kWarps, ... < end
  int block, within, next_valid;  // of the next kLookAhead tiles
  std::int64_t place = 0;         // of the current ones, in tiles from the start of the layer
  int valid = 0;                  // tokens of the tile that exist

  __device__ TileFinder(const DecodeAttention& op, const int* tiles_before, int log2_tiles, int first, int end)
      : op(op), tiles_before(tiles_before), log2_tiles(log2_tiles), first(first), end(end) {
    look_up(0);
  }

  __device__ void look_up(int n) {
    const int tile = first + (n + static_cast<int>(threadIdx.x) % 32) * kWarps;
    block = within = next_valid = 0;
    if (tile >= end) return;
    const Item item = find_item(tiles_before, op.batch.num_seqs, op.cache.kv_heads, tile);
    const int at = tile - item.begin;
    next_valid = min(kTileTokens, op.batch.kv_length[item.sequence] - at * kTileTokens);
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

/// Copies a tile into a stage of the ring. Lane (g, t) of the fragments, g = lane / 4: of K, tokens g and g + 8, pieces
/// t, t + 4, ... of the row; of V, tokens 2t, 2t+1, 2t+8, 2t+9, pieces g, g + 8, ...
template <KvDtype kDtype>
__device__ inline void copy_tile(const KvLayer& cache, std::int64_t place, int valid, unsigned stage) {
  using R = Ring<kDtype>;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  constexpr int kPerRowK = R::kPieces / 2, kPerRowV = R::kPieces / 4;
  const auto* k = static_cast<const char*>(cache.k) + place * R::kTileBytes;
  const auto* v = static_cast<const char*>(cache.v) + place * R::kTileBytes;
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p) {
    const int token = g + 8 * (p / kPerRowK), piece = t + 4 * (p % kPerRowK);
    copy16(stage + p * 512, k + token * R::kRowBytes + piece * 16, token < valid);
  }
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p) {
    const int pair = p / kPerRowV, token = 2 * t + (pair & 1) + (pair / 2) * 8, piece = g + 8 * (p % kPerRowV);
    copy16(stage + R::kTileBytes + p * 512, v + token * R::kRowBytes + piece * 16, token < valid);
  }
}

/// Running softmax of 8 * kColumns queries over the tokens that a warp has met.
template <KvDtype kDtype, int kColumns>
struct Accumulator {
  using R = Ring<kDtype>;
  static constexpr bool kHalf = R::kFp8;  // E4M3 is exact in fp16, whose products are finer than those of bf16
  unsigned q[kColumns][8][2];             // Q^T fragments
  float factor;                           // of the raw scores, log2 e included
  float out[kColumns][8][4];              // O^T fragments
  float maximum[kColumns][2];             // of queries 2t, 2t + 1: reference of the exponents
  float sum[kColumns][2];                 // over this lane's tokens g, g + 8

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

  /// rows: the group's first query head. FP8: Q becomes fp16, times a power of two that keeps it in range.
  __device__ void load_queries(const __nv_bfloat16* rows, int group, float k_scale) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int s = 0; s < 8; ++s) {
        const int dim = R::kFp8 ? (t + 4 * (s / 4)) * 16 + 4 * (s % 4) : (t + 4 * (s / 2)) * 8 + 4 * (s % 2);
        const int query = 8 * c + g;
        uint2 v = make_uint2(0, 0);
        if (query < group) v = *reinterpret_cast<const uint2*>(rows + query * kHeadDim + dim);
        q[c][s][0] = v.x;
        q[c][s][1] = v.y;
      }
    factor = kLog2E * 0.08838834764831845f;  // 1 / sqrt(128)
    if constexpr (R::kFp8) {
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
    constexpr int kPerRow = R::kPieces / 2;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) score[c][i] = 0;
#pragma unroll
    for (int p = 0; p < kPerRow; ++p) {
      const uint4 low = load_shared16(stage + p * 512), high = load_shared16(stage + (p + kPerRow) * 512);
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
      for (int j = 0; j < 2; ++j) far |= fmaxf(score[c][j], score[c][j + 2]) * factor > maximum[c][j] + kMaximumSlack;
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
      p[c][0] = transpose(pack<kHalf>(score[c][0], score[c][1]));
      p[c][1] = transpose(pack<kHalf>(score[c][2], score[c][3]));
    }
    add_values(stage + R::kTileBytes, p);
  }

  __device__ void add_values(unsigned stage, const unsigned (&p)[kColumns][2]) {
    constexpr int kPerRow = R::kPieces / 4;
#pragma unroll
    for (int j = 0; j < kPerRow; ++j) {
      uint4 v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = load_shared16(stage + (i * kPerRow + j) * 512);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (R::kFp8) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {  // a word holds four dims: two products of two rows
            const unsigned x = __byte_perm(word(v[0], w), word(v[1], w), h ? 0x7362 : 0x5140);
            const unsigned y = __byte_perm(word(v[2], w), word(v[3], w), h ? 0x7362 : 0x5140);
            const unsigned a[4] = {halves_of_e4m3(x), halves_of_e4m3(x >> 16), halves_of_e4m3(y),
                                   halves_of_e4m3(y >> 16)};
#pragma unroll
            for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][2 * w + h], a, p[c][0], p[c][1]);
          }
        } else {
          const unsigned a[4] = {
              __byte_perm(word(v[0], w), word(v[1], w), 0x5410), __byte_perm(word(v[0], w), word(v[1], w), 0x7632),
              __byte_perm(word(v[2], w), word(v[3], w), 0x5410), __byte_perm(word(v[2], w), word(v[3], w), 0x7632)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][4 * j + w], a, p[c][0], p[c][1]);
        }
      }
    }
  }

  /// The first of eight neighbouring dims that out[.][4 * j .. 4 * j + 3] hold, two in each.
  __device__ static int first_dim(int j) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    return R::kFp8 ? g * 16 + 8 * j : (g + 8 * j) * 8;
  }

  __device__ void sum_over_lanes() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum[c][j] += __shfl_xor_sync(kAllLanes, sum[c][j], step);
  }

  static constexpr int kFloats = kColumns * 36;  // of a lane

  __device__ void save(float* buffer) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 32; ++i) buffer[(c * 36 + i) * 32] = out[c][i / 4][i % 4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        buffer[(c * 36 + 32 + j) * 32] = maximum[c][j];
        buffer[(c * 36 + 34 + j) * 32] = sum[c][j];
      }
    }
  }

  __device__ void merge(const float* buffer) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      float mine[2], theirs[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float other = buffer[(c * 36 + 32 + j) * 32], top = fmaxf(maximum[c][j], other);
        mine[j] = exp2_fast(maximum[c][j] - top);
        theirs[j] = exp2_fast(other - top);
        maximum[c][j] = top;
        sum[c][j] = sum[c][j] * mine[j] + buffer[(c * 36 + 34 + j) * 32] * theirs[j];
      }
#pragma unroll
      for (int i = 0; i < 32; ++i)
        out[c][i / 4][i % 4] = out[c][i / 4][i % 4] * mine[i % 2] + buffer[(c * 36 + i) * 32] * theirs[i % 2];
    }
  }
};

/// Adds the warps' parts up in the first warp, in a fixed order. All warps call.
template <KvDtype kDtype, int kColumns>
__device__ void merge_warps(Accumulator<kDtype, kColumns>& acc, float* buffers) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  acc.sum_over_lanes();
#pragma unroll
  for (int half = kWarps / 2; half > 0; half /= 2) {
    float* buffer = buffers + (warp % half) * acc.kFloats * 32 + lane;
    __syncthreads();
    if (warp >= half && warp < 2 * half) acc.save(buffer);
    __syncthreads();
    if (warp < half) acc.merge(buffer);
  }
}

/// One query's outputs, called by the lanes that hold it; to: bf16 [kHeadDim].
template <KvDtype kDtype, int kColumns>
__device__ void store_output(const Accumulator<kDtype, kColumns>& acc, __nv_bfloat16* rows, int group, float v_scale) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int query = 8 * c + 2 * t + j;
      if (query >= group) continue;
      const float scale = v_scale / acc.sum[c][j];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        unsigned w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          w[i] = pack<false>(acc.out[c][4 * half + i][j] * scale, acc.out[c][4 * half + i][j + 2] * scale);
        *reinterpret_cast<uint4*>(rows + query * kHeadDim + acc.first_dim(half)) = make_uint4(w[0], w[1], w[2], w[3]);
      }
    }
}

/// Writes a part of an item: [query][kPartFloats].
template <KvDtype kDtype, int kColumns>
__device__ void store_part(const Accumulator<kDtype, kColumns>& acc, float* part, int group) {
  const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int query = 8 * c + 2 * t + j;
      if (query >= group) continue;
      float* to = part + query * kHeadDim;
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < 4; i += 2)
          *reinterpret_cast<float4*>(to + acc.first_dim(half) + 2 * i) =
              make_float4(acc.out[c][4 * half + i][j], acc.out[c][4 * half + i][j + 2], acc.out[c][4 * half + i + 1][j],
                          acc.out[c][4 * half + i + 1][j + 2]);
      if (lane < 4) {
        float* ends = part + kMaxGroup * kHeadDim + 2 * query;
        ends[0] = acc.maximum[c][j];
        ends[1] = acc.sum[c][j];
      }
    }
}

constexpr int kPartSize = kMaxGroup * kPartFloats;  // floats

/// A thread block leaves at most two parts: of the item it begins in the middle of or at (slot 0), and of the one that
/// goes on after its end (slot 1).
__device__ inline const float* part_of(const float* parts, int block, int slot) {
  return parts + (static_cast<std::int64_t>(block) * 2 + slot) * kPartSize;
}

/// Adds the parts of an item in the order of their thread blocks and writes its output rows. A warp takes a query.
__device__ inline void combine(const float* parts, const Slices& slices, const Item& item, __nv_bfloat16* rows,
                               int group, float v_scale) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int first = slices.owner(item.begin), last = slices.owner(item.end - 1);
  const int first_slot = slices.begin(first) >= item.begin ? 0 : 1;  // the others begin within the item
  for (int query = warp; query < group; query += kWarps) {
    float top = kNoMaximum;
    for (int b = first + lane; b <= last; b += 32)
      top = fmaxf(top, __ldcg(part_of(parts, b, b == first ? first_slot : 0) + kMaxGroup * kHeadDim + 2 * query));
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
    float4 out = make_float4(0, 0, 0, 0);
    float sum = 0;
#pragma unroll 4
    for (int b = first; b <= last; ++b) {
      const float* part = part_of(parts, b, b == first ? first_slot : 0);
      const float2 ends = __ldcg(reinterpret_cast<const float2*>(part + kMaxGroup * kHeadDim + 2 * query));
      const float4 x = __ldcg(reinterpret_cast<const float4*>(part + query * kHeadDim + 4 * lane));
      const float weight = exp2_fast(ends.x - top);
      sum += ends.y * weight;
      out.x += x.x * weight;
      out.y += x.y * weight;
      out.z += x.z * weight;
      out.w += x.w * weight;
    }
    const float scale = v_scale / sum;
    *reinterpret_cast<uint2*>(rows + query * kHeadDim + 4 * lane) =
        make_uint2(pack<false>(out.x * scale, out.y * scale), pack<false>(out.z * scale, out.w * scale));
  }
}

template <KvDtype kDtype, int kColumns>
constexpr int kMergeBytes = kWarps / 2 * Accumulator<kDtype, kColumns>::kFloats * 32 * static_cast<int>(sizeof(float));

template <KvDtype kDtype, int kColumns>
constexpr int shared_bytes(int num_seqs) {
  return Ring<kDtype>::kBytes + kMergeBytes<kDtype, kColumns> + (num_seqs + 1) * static_cast<int>(sizeof(int));
}

constexpr int blocks_per_multiprocessor(int columns) { return columns == 1 ? 3 : 2; }

template <KvDtype kDtype, int kColumns>
__global__ void __launch_bounds__(kThreads, blocks_per_multiprocessor(kColumns))
    decode_attention_kernel(const __grid_constant__ DecodeAttention op, const Shape shape) {
  using R = Ring<kDtype>;
  extern __shared__ __align__(128) char shared[];
  float* merge_buffers = reinterpret_cast<float*>(shared + R::kBytes);
  int* tiles_before = reinterpret_cast<int*>(shared + R::kBytes + kMergeBytes<kDtype, kColumns>);
  __shared__ bool is_last;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  if (warp == 0) count_tiles(op.batch, tiles_before);
  __syncthreads();
  Slices slices;
  slices.total = tiles_before[op.batch.num_seqs] * op.cache.kv_heads;
  slices.blocks = min(static_cast<int>(gridDim.x), max(1, slices.total / kMinTilesPerBlock));
  const int block = static_cast<int>(blockIdx.x);
  if (block >= slices.blocks || slices.total == 0) return;
  const int begin = slices.begin(block), end = slices.begin(block + 1);

  TileFinder finder(op, tiles_before, shape.log2_block - 4, begin + warp, end);
  const unsigned ring = shared_address(shared) + warp * R::kStages * R::kStageBytes + lane * 16;
  int next = 0, next_stage = 0;  // tile to copy
  const auto copy_next = [&] {
    std::int64_t place;
    int valid;
    finder.find(next, place, valid);
    if (valid > 0) copy_tile<kDtype>(op.cache, place, valid, ring + next_stage * R::kStageBytes);
    commit_copies();
    ++next;
    next_stage = next_stage + 1 == R::kStages ? 0 : next_stage + 1;
  };
#pragma unroll
  for (int i = 0; i < R::kStages - 1; ++i) copy_next();

  Accumulator<kDtype, kColumns> acc;
  int* counters = static_cast<int*>(op.workspace);
  float* parts = reinterpret_cast<float*>(counters + shape.counters);
  int stage = 0, tile = begin + warp;
  for (int at = begin; at < end;) {
    const Item item = find_item(tiles_before, op.batch.num_seqs, op.cache.kv_heads, at);
    const int stop = min(item.end, end);
    const int length = op.batch.kv_length[item.sequence];
    const std::int64_t row = static_cast<std::int64_t>(op.batch.first_row[item.sequence]) * op.heads;
    const std::int64_t offset = (row + item.kv_head * shape.group) * kHeadDim;
    acc.clear();
    acc.load_queries(static_cast<const __nv_bfloat16*>(op.q) + offset, shape.group,
                     R::kFp8 ? op.cache.k_scale[item.kv_head] : 1.0f);
    for (; tile < stop; tile += kWarps) {
      copy_next();
      wait_copies<R::kStages - 1>();
      acc.add_tile(ring + stage * R::kStageBytes, min(kTileTokens, length - (tile - item.begin) * kTileTokens));
      stage = stage + 1 == R::kStages ? 0 : stage + 1;
    }
    merge_warps(acc, merge_buffers);

    const float v_scale = R::kFp8 ? op.cache.v_scale[item.kv_head] : 1.0f;
    __nv_bfloat16* rows = static_cast<__nv_bfloat16*>(op.out) + offset;
    if (item.begin >= begin && item.end <= end) {
      if (warp == 0) store_output(acc, rows, shape.group, v_scale);
    } else {
      if (warp == 0) {
        store_part(acc, const_cast<float*>(part_of(parts, block, begin >= item.begin ? 0 : 1)), shape.group);
        __threadfence();
        __syncwarp();
        if (lane == 0) {
          int* counter = counters + item.sequence * op.cache.kv_heads + item.kv_head;
          const int others = slices.owner(item.end - 1) - slices.owner(item.begin);
          is_last = atomicAdd(counter, 1) == others;
          if (is_last) *counter = 0;
          __threadfence();
        }
      }
      __syncthreads();
      if (is_last) combine(parts, slices, item, rows, shape.group, v_scale);
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

int shared_bytes_per_multiprocessor() {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  return bytes;
}

int counter_ints(int num_seqs, int kv_heads) { return (num_seqs * kv_heads + 63) / 64 * 64; }

template <KvDtype kDtype, int kColumns>
cudaError_t launch(const DecodeAttention& op, const Shape& shape, cudaStream_t stream) {
  constexpr int kReserved = 1024;  // of shared memory, a thread block
  const int bytes = shared_bytes<kDtype, kColumns>(op.batch.num_seqs);
  const auto kernel = decode_attention_kernel<kDtype, kColumns>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int resident =
      std::clamp(shared_bytes_per_multiprocessor() / (bytes + kReserved), 1, blocks_per_multiprocessor(kColumns));
  const long long tiles = static_cast<long long>(op.batch.num_seqs) * op.cache.kv_heads *
                          ((op.max_kv_length + kTileTokens - 1) / kTileTokens);
  const int grid = static_cast<int>(
      std::clamp<long long>(tiles / kMinTilesPerBlock, 1, static_cast<long long>(resident) * multiprocessors()));
  kernel<<<grid, kThreads, bytes, stream>>>(op, shape);
  return cudaGetLastError();
}

}  // namespace

std::size_t decode_attention_workspace_bytes(int num_seqs, int, int kv_heads) {
  return counter_ints(num_seqs, kv_heads) * sizeof(int) +
         static_cast<std::size_t>(multiprocessors()) * 3 * 2 * kPartSize * sizeof(float);
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
  const bool fp8 = op.cache.dtype == KvDtype::kFp8E4M3;
  if (shape.group <= 8)
    return fp8 ? launch<KvDtype::kFp8E4M3, 1>(op, shape, stream) : launch<KvDtype::kBFloat16, 1>(op, shape, stream);
  return fp8 ? launch<KvDtype::kFp8E4M3, 2>(op, shape, stream) : launch<KvDtype::kBFloat16, 2>(op, shape, stream);
}

}  // namespace qwenbench::kernels
