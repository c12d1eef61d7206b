#include <algorithm>

#include "kernels/flash_attention.cuh"
#include "kernels/launch.h"
#include "kernels/prefill_attention.h"

namespace qwenbench::kernels {
namespace {

using namespace device;
using Tile = FlashTile<kHeadDim / 8>;

/// What one launch computes: the KV heads [first_head, first_head + heads in the grid).
struct Pass {
  PrefillAttention op;
  int group, log2_block;
  int first_head, num_heads;
  __nv_bfloat16 *k, *v;  // the cache itself, or its expanded copy [blocks][num_heads][block_size][128]
  bool expanded;         // then the blocks of the sequences lie one after another
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

/// A thread block expands one block of the cache and one head.
__global__ void expand_kernel(const __grid_constant__ Pass pass) {
  const auto count = [&](int s) { return blocks_of(pass, s); };
  const int index = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const Place place = find(pass.op.batch.num_seqs, index, count);
  wait_for_previous();  // before any block ends, too: or the launch might end before what comes before it
  let_next_start();
  if (place.sequence < 0) return;
  const KvLayer& cache = pass.op.cache;
  const int block =
      pass.op.batch.block_table[static_cast<std::int64_t>(place.sequence) * pass.op.batch.max_blocks + place.index];
  const int codes = kHeadDim << pass.log2_block;
  const std::int64_t from = (static_cast<std::int64_t>(block) * cache.kv_heads + pass.first_head + head) * codes;
  const std::int64_t to = (static_cast<std::int64_t>(index) * pass.num_heads + head) * codes;
  const auto expand = [&](const void* source, __nv_bfloat16* target) {
    for (int i = static_cast<int>(threadIdx.x) * 8; i < codes; i += static_cast<int>(blockDim.x) * 8) {
      const uint2 v = *reinterpret_cast<const uint2*>(static_cast<const std::uint8_t*>(source) + from + i);
      unsigned w[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        w[j] = bf16_of_e4m3((j < 2 ? v.x : v.y) >> (j % 2 * 16));
      }
      *reinterpret_cast<uint4*>(target + to + i) = make_uint4(w[0], w[1], w[2], w[3]);
    }
  };
  expand(cache.k, pass.k);
  expand(cache.v, pass.v);
}

/// Rows of a thread block: (row of q, query head of the group), the heads running fastest.
struct QueryTile {
  int sequence;     // < 0: nothing to do
  int row, count;   // first row of q; rows * group that remain from here
  int first_block;  // of the expanded copy
};

__device__ inline QueryTile find_query_tile(const Pass& pass) {
  const int rows_per_tile = max(1, kFlashRows / pass.group);
  const auto tiles = [&](int s) {
    const Rows rows = rows_of(pass.op, s);
    return (rows.end - rows.begin + rows_per_tile - 1) / rows_per_tile;
  };
  const int index = static_cast<int>(gridDim.x - 1 - blockIdx.x);  // the longest of a sequence first
  const Place place = find(pass.op.batch.num_seqs, index, tiles);
  if (place.sequence < 0) return {-1, 0, 0, 0};
  const Rows rows = rows_of(pass.op, place.sequence);
  QueryTile tile;
  tile.sequence = place.sequence;
  tile.row = rows.begin + place.index * rows_per_tile;
  tile.count = min(rows_per_tile, rows.end - tile.row) * pass.group;
  tile.first_block = pass.expanded ? sum_before(place.sequence, [&](int s) { return blocks_of(pass, s); }) : 0;
  return tile;
}

/// Copies of K and V rows: a thread takes chunk threadIdx % 16 of rows threadIdx / 16 + 8i. The first threads look up
/// the cache blocks of the tiles of keys, two tiles ahead, and hand them on through shared memory.
struct KvCopier {
  static constexpr int kGroups = kFlashKeys / 16;  // a block of the cache holds whole groups of 16 tokens
  const Pass& pass;
  const int* table;
  int head, length, first_block;
  int (*blocks)[kGroups];  // in shared memory, of even and odd tiles
  int ahead;               // of the next tile to be announced

  __device__ void look_up(int tile) {
    const int token = tile * kFlashKeys + 16 * static_cast<int>(threadIdx.x), at = token >> pass.log2_block;
    if (threadIdx.x < kGroups) ahead = token >= length ? 0 : pass.expanded ? first_block + at : table[at];
  }

  /// To be called for tiles 0, 1, ..., with a barrier before the copies that use it.
  __device__ void announce(int tile) {
    if (threadIdx.x < kGroups) blocks[tile % 2][threadIdx.x] = ahead;
    look_up(tile + 1);
  }

  __device__ void copy(const __nv_bfloat16* from, unsigned to, int tile) const {
    const int thread = static_cast<int>(threadIdx.x), chunk = thread % 16, row = thread / 16;
    const int heads = pass.expanded ? pass.num_heads : pass.op.cache.kv_heads, mask = (1 << pass.log2_block) - 1;
#pragma unroll
    for (int i = 0; i < 2 * kGroups; ++i) {
      const int token = tile * kFlashKeys + 8 * i + row;
      const int place = ((blocks[tile % 2][i / 2] * heads + head) << pass.log2_block) + (token & mask);
      copy16(to + (8 * i + row) * Tile::kRowBytes + chunk * 16,
             from + static_cast<std::int64_t>(place) * kHeadDim + chunk * 8, token < length);
    }
  }
};

__device__ inline const __nv_bfloat16* query_at(const Pass& pass, const void* base, const QueryTile& tile, int kv_head,
                                                int i) {
  const std::int64_t row = tile.row + i / pass.group;
  return static_cast<const __nv_bfloat16*>(base) +
         (row * pass.op.heads + kv_head * pass.group + i % pass.group) * kHeadDim;
}

__device__ inline void copy_queries(const Pass& pass, const QueryTile& tile, int kv_head, unsigned to) {
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % 16;
#pragma unroll 4
  for (int i = thread / 16; i < kFlashRows; i += kFlashThreads / 16) {
    const bool valid = i < tile.count;
    copy16(to + i * Tile::kRowBytes + chunk * 16, query_at(pass, pass.op.q, tile, kv_head, valid ? i : 0) + chunk * 8,
           valid);
  }
}

/// The position of row i of a tile.
__device__ inline int position_of(const Pass& pass, const QueryTile& tile, int i) {
  const int row = tile.row + min(i, tile.count - 1) / pass.group;
  const int token = pass.op.row_token ? pass.op.row_token[row] : row;
  const PagedBatch& batch = pass.op.batch;
  return batch.kv_length[tile.sequence] - batch.num_rows[tile.sequence] + token - batch.first_row[tile.sequence];
}

/// Rounds the queries that this thread copied to E4M3, once they are here.
__device__ inline void round_queries(char* shared, float q_scale) {
  wait_copies<0>();
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % 16;
#pragma unroll 4
  for (int i = thread / 16; i < kFlashRows; i += kFlashThreads / 16) {
    auto* at = reinterpret_cast<uint4*>(shared + i * Tile::kRowBytes + chunk * 16);
    const uint4 v = *at;
    const auto round = [&](unsigned pair) {
      return bf16_of_e4m3(e4m3_of(__fdiv_rn(bf16_low(pair), q_scale), __fdiv_rn(bf16_high(pair), q_scale)));
    };
    *at = make_uint4(round(v.x), round(v.y), round(v.z), round(v.w));
  }
}

/// kCodes: queries and exponentials are rounded to E4M3.
template <bool kCodes>
__global__ void __launch_bounds__(kFlashThreads, 2) prefill_attention_kernel(const __grid_constant__ Pass pass) {
  extern __shared__ __align__(128) char memory[];
  const unsigned shared = shared_address(memory);
  const QueryTile queries = find_query_tile(pass);
  wait_for_previous();
  let_next_start();
  if (queries.sequence < 0) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int local_head = static_cast<int>(blockIdx.y), kv_head = pass.first_head + local_head;
  copy_queries(pass, queries, kv_head, shared);

  __shared__ int last_key[kFlashRows];
  __shared__ int blocks[2][KvCopier::kGroups];
  last_key[thread] = position_of(pass, queries, thread);
  const int shortest = position_of(pass, queries, 0), longest = position_of(pass, queries, queries.count - 1);
  const bool fp8 = pass.op.cache.dtype == KvDtype::kFp8E4M3;
  float factor = kLog2E * 0.08838834764831845f * (fp8 ? pass.op.cache.k_scale[kv_head] : 1.0f);
  float out_scale = fp8 ? pass.op.cache.v_scale[kv_head] : 1.0f;
  if constexpr (kCodes) {
    const float q_scale = pass.op.q_scale[kv_head];
    factor *= q_scale;
    out_scale *= pass.op.prob_scale;
    commit_copies();
    round_queries(memory, q_scale);
  }

  KvCopier copier = {pass,
                     pass.op.batch.block_table + static_cast<std::int64_t>(queries.sequence) * pass.op.batch.max_blocks,
                     pass.expanded ? local_head : kv_head,
                     longest + 1,
                     queries.first_block,
                     blocks,
                     0};
  copier.look_up(0);
  copier.announce(0);
  __syncthreads();
  Tile tile;
  pass_over_keys<kCodes>(
      tile, shared, longest / kFlashKeys + 1, factor, shortest + 1, [&](int row) { return last_key[row]; },
      [&](int j) { copier.copy(pass.k, shared + Tile::kQueryBytes, j); },
      [&](int j) {
        copier.copy(pass.v, shared + Tile::kQueryBytes + Tile::kKeyBytes, j);
        copier.announce(j + 1);
      },
      kCodes ? 1.0f / pass.op.prob_scale : 1.0f);

  auto* rows = reinterpret_cast<__nv_bfloat16*>(memory) + warp * 32 * Tile::kStride;
  tile.finish(rows, out_scale);
#pragma unroll 4
  for (int i = lane; i < 32 * 16; i += 32) {
    const int row = i / 16, chunk = i % 16;
    if (warp * 32 + row < queries.count)
      *reinterpret_cast<uint4*>(
          const_cast<__nv_bfloat16*>(query_at(pass, pass.op.out, queries, kv_head, warp * 32 + row)) + chunk * 8) =
          *reinterpret_cast<const uint4*>(rows + row * Tile::kStride + chunk * 8);
  }
}

long long expanded_blocks(long long max_total_kv, int num_seqs, int block_size) {
  return max_total_kv / block_size + num_seqs;
}

std::size_t expanded_bytes_per_head(long long max_total_kv, int num_seqs, int block_size) {
  return static_cast<std::size_t>(expanded_blocks(max_total_kv, num_seqs, block_size)) * block_size * kHeadDim * 2 *
         sizeof(__nv_bfloat16);
}

template <bool kCodes>
cudaError_t start(const Pass& pass, cudaStream_t stream) {
  const PrefillAttention& op = pass.op;
  const auto kernel = prefill_attention_kernel<kCodes>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
  if (error != cudaSuccess) return error;
  if (pass.expanded) {
    const dim3 grid(static_cast<unsigned>(expanded_blocks(op.max_total_kv, op.batch.num_seqs, op.cache.block_size)),
                    pass.num_heads);
    error = launch(expand_kernel, grid, 128, 0, stream, pass);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid(ceil_div(op.rows, kFlashRows / pass.group) + op.batch.num_seqs - 1, pass.num_heads);
  return launch(kernel, grid, kFlashThreads, Tile::kBytes, stream, pass);
}

}  // namespace

std::size_t prefill_attention_workspace_bytes(long long max_total_kv, int num_seqs, int block_size, int kv_heads) {
  return expanded_bytes_per_head(max_total_kv, num_seqs, block_size) * kv_heads;
}

cudaError_t prefill_attention(const PrefillAttention& op, cudaStream_t stream) {
  if (op.rows == 0 || op.batch.num_seqs == 0) return cudaSuccess;
  Pass pass;
  pass.op = op;
  pass.group = op.heads / op.cache.kv_heads;
  pass.log2_block = 4;
  while ((1 << pass.log2_block) < op.cache.block_size) ++pass.log2_block;
  if (pass.group < 1 || pass.group > kFlashRows || pass.group * op.cache.kv_heads != op.heads ||
      (1 << pass.log2_block) != op.cache.block_size)
    return cudaErrorInvalidValue;
  if (op.q_scale && (op.cache.dtype != KvDtype::kFp8E4M3 || !(op.prob_scale > 0))) return cudaErrorInvalidValue;
  pass.expanded = op.cache.dtype == KvDtype::kFp8E4M3;
  pass.first_head = 0;
  pass.num_heads = op.cache.kv_heads;
  pass.k = static_cast<__nv_bfloat16*>(op.cache.k);
  pass.v = static_cast<__nv_bfloat16*>(op.cache.v);
  if (!pass.expanded) return start<false>(pass, stream);

  const std::size_t per_head = expanded_bytes_per_head(op.max_total_kv, op.batch.num_seqs, op.cache.block_size);
  const int at_once = static_cast<int>(std::min<std::size_t>(op.workspace_bytes / per_head, op.cache.kv_heads));
  if (at_once == 0) return cudaErrorMemoryAllocation;
  pass.k = static_cast<__nv_bfloat16*>(op.workspace);
  pass.v = pass.k + per_head / (2 * sizeof(__nv_bfloat16)) * at_once;
  for (; pass.first_head < op.cache.kv_heads; pass.first_head += at_once) {
    pass.num_heads = std::min(at_once, op.cache.kv_heads - pass.first_head);
    const cudaError_t launched = op.q_scale ? start<true>(pass, stream) : start<false>(pass, stream);
    if (launched != cudaSuccess) return launched;
  }
  return cudaSuccess;
}

}  // namespace qwenbench::kernels
