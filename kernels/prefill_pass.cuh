// What one launch of prefill attention computes, and how its rows are found: shared by the kernels.
#pragma once

#include "kernels/attention_device.cuh"
#include "kernels/launch.h"
#include "kernels/prefill_attention.h"

namespace qwenbench::kernels::device {

constexpr int kTileRows = 128;  // (row of q, query head of the group) pairs of a thread block

/// What one launch computes: the KV heads [first_head, first_head + heads in the grid).
struct Pass {
  PrefillAttention op;
  int group, log2_block;
  int first_head, num_heads;
  __nv_bfloat16 *k, *v;   // the cache itself, or its expanded copy [num_heads][blocks][block_size][128]
  bool expanded;          // then the blocks of the sequences lie one after another
  long long head_tokens;  // of the expanded copy, from head to head
};

__device__ inline int first_row_at(const PrefillAttention& op, int token) {
  if (!op.row_token) return token;
  int low = 0, high = op.rows;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (op.row_token[middle] < token)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

struct Rows {
  int begin, end;
};

__device__ inline Rows rows_of(const PrefillAttention& op, int s) {
  const int tokens = op.batch.num_rows[s], first = op.batch.first_row[s];
  if (op.batch.kv_length[s] == 0 || tokens < op.min_rows) return {0, 0};
  return {first_row_at(op, first), first_row_at(op, first + tokens)};
}

__device__ inline int blocks_of(const Pass& pass, int s) {
  const Rows rows = rows_of(pass.op, s);
  return rows.begin == rows.end ? 0 : (pass.op.batch.kv_length[s] + (1 << pass.log2_block) - 1) >> pass.log2_block;
}

/// The row of k and v [rows][128] where a token of a cache block lies; local_head counts from pass.first_head.
__device__ inline int cache_row(const Pass& pass, int block, int local_head, int token) {
  const int in_block = token & ((1 << pass.log2_block) - 1);
  if (pass.expanded) return static_cast<int>(local_head * pass.head_tokens) + (block << pass.log2_block) + in_block;
  return ((block * pass.op.cache.kv_heads + pass.first_head + local_head) << pass.log2_block) + in_block;
}

struct Place {
  int sequence, index;  // sequence < 0: beyond the last
};

/// The sequence in which `index` falls, where sequence s holds count(s) of what is counted. All lanes of a warp call.
template <class Count>
__device__ inline Place find(int num_seqs, int index, const Count& count) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int first = 0; first < num_seqs; first += 32) {
    const int own = first + lane < num_seqs ? count(first + lane) : 0;
    int sum = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += other;
    }
    const unsigned after = __ballot_sync(kAllLanes, sum > index);
    if (after) {
      const int at = __ffs(static_cast<int>(after)) - 1;
      return {first + at, index - __shfl_sync(kAllLanes, sum - own, at)};
    }
    index -= __shfl_sync(kAllLanes, sum, 31);
  }
  return {-1, 0};
}

template <class Count>
__device__ inline int sum_before(int sequence, const Count& count) {
  int sum = 0;
  for (int s = static_cast<int>(threadIdx.x) % 32; s < sequence; s += 32) sum += count(s);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  return sum;
}

/// Rows of q of a thread block.
__host__ __device__ inline int tile_rows(int group) { return kTileRows / group; }

/// At least the number of tiles of a head.
__host__ __device__ inline int query_tiles(const Pass& pass) {
  const int rows = tile_rows(pass.group);
  return (pass.op.rows + rows - 1) / rows + pass.op.batch.num_seqs - 1;
}

/// Rows of a thread block: (row of q, query head of the group), the heads running fastest.
struct QueryTile {
  int sequence;     // < 0: nothing to do
  int row, count;   // first row of q; rows * group that remain from here
  int first_block;  // of the expanded copy
};

/// The last rows of the last sequence are tile 0: they attend to most keys. All lanes of a warp call.
__device__ inline QueryTile find_query_tile(const Pass& pass, int index) {
  const int rows_per_tile = tile_rows(pass.group);
  const auto tiles = [&](int s) {
    const Rows rows = rows_of(pass.op, s);
    return (rows.end - rows.begin + rows_per_tile - 1) / rows_per_tile;
  };
  const Place place = find(pass.op.batch.num_seqs, query_tiles(pass) - 1 - index, tiles);
  if (place.sequence < 0) return {-1, 0, 0, 0};
  const Rows rows = rows_of(pass.op, place.sequence);
  QueryTile tile;
  tile.sequence = place.sequence;
  tile.row = rows.begin + place.index * rows_per_tile;
  tile.count = min(rows_per_tile, rows.end - tile.row) * pass.group;
  tile.first_block = pass.expanded ? sum_before(place.sequence, [&](int s) { return blocks_of(pass, s); }) : 0;
  return tile;
}

/// Row i of a tile that begins at first_row of q, or its output.
__device__ inline const __nv_bfloat16* query_at(const Pass& pass, const void* base, int first_row, int kv_head, int i) {
  const std::int64_t row = first_row + i / pass.group;
  return static_cast<const __nv_bfloat16*>(base) +
         (row * pass.op.heads + kv_head * pass.group + i % pass.group) * kHeadDim;
}

/// The position of row i of a tile.
__device__ inline int position_of(const Pass& pass, const QueryTile& tile, int i) {
  const int row = tile.row + min(i, tile.count - 1) / pass.group;
  const int token = pass.op.row_token ? pass.op.row_token[row] : row;
  const PagedBatch& batch = pass.op.batch;
  return batch.kv_length[tile.sequence] - batch.num_rows[tile.sequence] + token - batch.first_row[tile.sequence];
}

/// What scores and sums of a KV head are multiplied by.
struct Factors {
  float score, out;  // score: with log2 e, for exp2
};

__device__ inline Factors factors_of(const Pass& pass, int kv_head) {
  constexpr float kInverseRoot = 0.08838834764831845f;  // 1 / sqrt(128)
  Factors factors = {kLog2E * kInverseRoot, 1.0f};
  if (pass.op.cache.dtype != KvDtype::kFp8E4M3) return factors;
  factors.score *= pass.op.cache.k_scale[kv_head];
  factors.out = pass.op.cache.v_scale[kv_head];
  if (!pass.op.q_scale) return factors;
  factors.score *= pass.op.q_scale[kv_head];
  factors.out *= pass.op.prob_scale;
  return factors;
}

/// A pair of bf16 query elements as the bf16 numbers of their E4M3 codes.
__device__ inline unsigned query_codes(unsigned pair, float q_scale) {
  return bf16_of_e4m3(e4m3_of(__fdiv_rn(bf16_low(pair), q_scale), __fdiv_rn(bf16_high(pair), q_scale)));
}
__device__ inline uint4 query_codes(uint4 v, float q_scale) {
  return make_uint4(query_codes(v.x, q_scale), query_codes(v.y, q_scale), query_codes(v.z, q_scale),
                    query_codes(v.w, q_scale));
}

}  // namespace qwenbench::kernels::device
