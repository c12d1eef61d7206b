#include <algorithm>

#include "kernels/flash_attention.cuh"
#include "kernels/prefill_attention_wgmma.h"
#include "kernels/prefill_pass.cuh"

namespace qwenbench::kernels {
namespace {

using namespace device;
using Tile = FlashTile<kHeadDim / 8>;

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
  const std::int64_t to = (head * pass.head_tokens + (static_cast<std::int64_t>(index) << pass.log2_block)) * kHeadDim;
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
#pragma unroll
    for (int i = 0; i < 2 * kGroups; ++i) {
      const int token = tile * kFlashKeys + 8 * i + row;
      const std::int64_t place = cache_row(pass, blocks[tile % 2][i / 2], head, token);
      copy16(to + (8 * i + row) * Tile::kRowBytes + chunk * 16, from + place * kHeadDim + chunk * 8, token < length);
    }
  }
};

__device__ inline void copy_queries(const Pass& pass, const QueryTile& tile, int kv_head, unsigned to) {
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % 16;
#pragma unroll 4
  for (int i = thread / 16; i < kFlashRows; i += kFlashThreads / 16) {
    const bool valid = i < tile.count;
    copy16(to + i * Tile::kRowBytes + chunk * 16,
           query_at(pass, pass.op.q, tile.row, kv_head, valid ? i : 0) + chunk * 8, valid);
  }
}

/// Rounds the queries that this thread copied to E4M3, once they are here.
__device__ inline void round_queries(char* shared, float q_scale) {
  wait_copies<0>();
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % 16;
#pragma unroll 4
  for (int i = thread / 16; i < kFlashRows; i += kFlashThreads / 16) {
    auto* at = reinterpret_cast<uint4*>(shared + i * Tile::kRowBytes + chunk * 16);
    *at = query_codes(*at, q_scale);
  }
}

/// kCodes: queries and exponentials are rounded to E4M3.
template <bool kCodes>
__global__ void __launch_bounds__(kFlashThreads, 2) prefill_attention_kernel(const __grid_constant__ Pass pass) {
  extern __shared__ __align__(128) char memory[];
  const unsigned shared = shared_address(memory);
  const QueryTile queries = find_query_tile(pass, static_cast<int>(blockIdx.x));
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
  const Factors factors = factors_of(pass, kv_head);
  if constexpr (kCodes) {
    commit_copies();
    round_queries(memory, pass.op.q_scale[kv_head]);
  }

  KvCopier copier = {pass,
                     pass.op.batch.block_table + static_cast<std::int64_t>(queries.sequence) * pass.op.batch.max_blocks,
                     local_head,
                     longest + 1,
                     queries.first_block,
                     blocks,
                     0};
  copier.look_up(0);
  copier.announce(0);
  __syncthreads();
  Tile tile;
  pass_over_keys<kCodes>(
      tile, shared, longest / kFlashKeys + 1, factors.score, shortest + 1, [&](int row) { return last_key[row]; },
      [&](int j) { copier.copy(pass.k, shared + Tile::kQueryBytes, j); },
      [&](int j) {
        copier.copy(pass.v, shared + Tile::kQueryBytes + Tile::kKeyBytes, j);
        copier.announce(j + 1);
      },
      kCodes ? 1.0f / pass.op.prob_scale : 1.0f);

  auto* rows = reinterpret_cast<__nv_bfloat16*>(memory) + warp * 32 * Tile::kStride;
  tile.finish(rows, factors.out);
#pragma unroll 4
  for (int i = lane; i < 32 * 16; i += 32) {
    const int row = i / 16, chunk = i % 16;
    if (warp * 32 + row < queries.count)
      *reinterpret_cast<uint4*>(
          const_cast<__nv_bfloat16*>(query_at(pass, pass.op.out, queries.row, kv_head, warp * 32 + row)) + chunk * 8) =
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

cudaError_t expand(const Pass& pass, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(pass.head_tokens >> pass.log2_block), pass.num_heads);
  return launch(expand_kernel, grid, 128, 0, stream, pass);
}

template <bool kCodes>
cudaError_t attend(const Pass& pass, cudaStream_t stream) {
  const auto kernel = prefill_attention_kernel<kCodes>;
  const cudaError_t error = allow_shared_memory(kernel, Tile::kBytes);
  if (error != cudaSuccess) return error;
  return launch(kernel, dim3(query_tiles(pass), pass.num_heads), kFlashThreads, Tile::kBytes, stream, pass);
}

cudaError_t start(const Pass& pass, cudaStream_t stream) {
  if (pass.expanded) {
    const cudaError_t error = expand(pass, stream);
    if (error != cudaSuccess) return error;
  }
  if (pass.op.use_wgmma && prefill_attention_wgmma_runs()) return prefill_attention_wgmma(pass, stream);
  return pass.op.q_scale ? attend<true>(pass, stream) : attend<false>(pass, stream);
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
  if (pass.group < 1 || pass.group > kTileRows || pass.group * op.cache.kv_heads != op.heads ||
      (1 << pass.log2_block) != op.cache.block_size)
    return cudaErrorInvalidValue;
  if (op.q_scale && (op.cache.dtype != KvDtype::kFp8E4M3 || !(op.prob_scale > 0))) return cudaErrorInvalidValue;
  pass.expanded = op.cache.dtype == KvDtype::kFp8E4M3;
  pass.first_head = 0;
  pass.num_heads = op.cache.kv_heads;
  pass.k = static_cast<__nv_bfloat16*>(op.cache.k);
  pass.v = static_cast<__nv_bfloat16*>(op.cache.v);
  pass.head_tokens = expanded_blocks(op.max_total_kv, op.batch.num_seqs, op.cache.block_size) * op.cache.block_size;
  if (!pass.expanded) return start(pass, stream);

  const std::size_t per_head = expanded_bytes_per_head(op.max_total_kv, op.batch.num_seqs, op.cache.block_size);
  const int at_once = static_cast<int>(std::min<std::size_t>(op.workspace_bytes / per_head, op.cache.kv_heads));
  if (at_once == 0) return cudaErrorMemoryAllocation;
  pass.k = static_cast<__nv_bfloat16*>(op.workspace);
  pass.v = pass.k + per_head / (2 * sizeof(__nv_bfloat16)) * at_once;
  for (; pass.first_head < op.cache.kv_heads; pass.first_head += at_once) {
    pass.num_heads = std::min(at_once, op.cache.kv_heads - pass.first_head);
    const cudaError_t launched = start(pass, stream);
    if (launched != cudaSuccess) return launched;
  }
  return cudaSuccess;
}

}  // namespace qwenbench::kernels
