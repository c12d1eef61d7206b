#include "kernels/prefill_attention_wgmma.h"
#include "kernels/tensor_map.h"
#include "kernels/wgmma_attention.cuh"
#include "kernels/wgmma_launch.h"

namespace qwenbench::kernels {
namespace {

using namespace device;

static_assert(kTileRows == kWgRows);
using Rings = WgRings<kHeadDim>;
using Tile = WgTile<kHeadDim>;

constexpr int kQueryThreads = kProducers - 32;  // one producer warp copies keys and values, the others queries

/// What the consumers must know of a tile of queries.
struct QueryInfo {
  int count;         // 0: there are no more
  int row, kv_head;  // first row of q
  int tiles;         // of keys
  int unmasked;      // keys to which all rows attend
  int kv_length;
  Factors factors;
  int last_key[kTileRows];
};

/// One launch.
struct WgPass {
  Pass pass;
  CUtensorMap keys, values;
  int box_rows;  // rows of k and v that a copy takes: contiguous in the cache

  __device__ Items items() const { return {query_tiles(pass) * pass.num_heads}; }
  __device__ int local_head(int item) const { return item % pass.num_heads; }
  __device__ QueryTile query_tile(int item) const { return find_query_tile(pass, item / pass.num_heads); }
};

__device__ inline int tiles_of_keys(const Pass& pass, const QueryTile& tile) {
  return position_of(pass, tile, tile.count - 1) / kWgKeys + 1;
}

/// A warp fills the rings of keys and values. Two lanes take the halves of box_rows rows.
struct KvProducer {
  const WgPass& wg;
  Rings rings;
  int use = 0;

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  /// This lane's first row within a tile.
  __device__ int first_row() const { return lane() / 2 * wg.box_rows; }

  __device__ void copy(const Ring<kHeadDim>& ring, int tile_use, const CUtensorMap& map, int row, bool active) const {
    const int copies = __popc(__ballot_sync(kAllLanes, active));
    ring.wait_empty(tile_use);
    if (lane() == 0) expect_bytes(ring.full(tile_use), copies * wg.box_rows * 128);
    __syncwarp();
    const int half = lane() % 2;
    const unsigned to = ring.slot(tile_use) + half * Tile::kHalfBytes + first_row() * 128;
    if (active) copy_box(to, map, half * 64, row, ring.full(tile_use));
  }

  __device__ void produce(const QueryTile& tile, int local_head) {
    const Pass& pass = wg.pass;
    const int* table = pass.op.batch.block_table + static_cast<std::int64_t>(tile.sequence) * pass.op.batch.max_blocks;
    const int length = pass.op.batch.kv_length[tile.sequence], tiles = tiles_of_keys(pass, tile), from = first_row();
    const auto takes_part = [&](int j) { return from < kWgKeys && j * kWgKeys + from < length; };
    const auto row_of = [&](int j) {
      const int token = j * kWgKeys + from, at = token >> pass.log2_block;
      const int block = !takes_part(j) ? 0 : pass.expanded ? tile.first_block + at : table[at];
      return cache_row(pass, block, local_head, token);
    };
    int next_row = row_of(0);  // looked up while this warp waits
    copy_tiles(
        tiles,
        [&](int j) {
          const int row = next_row;
          next_row = row_of(j + 1);
          copy(rings.keys, use + j, wg.keys, row, takes_part(j));
        },
        [&](int j) { copy(rings.values, use + j, wg.values, row_of(j), takes_part(j)); });
    use += tiles;
  }

  __device__ void run() {
    const Items items = wg.items();
    for (int round = 0; round < items.rounds(); ++round) {
      const int item = items.at(round);
      if (item >= items.count) continue;
      const QueryTile tile = wg.query_tile(item);
      if (tile.sequence >= 0) produce(tile, wg.local_head(item));
    }
  }
};

/// Three warps fill the ring of queries, and say what the tiles are.
template <bool kCodes>
struct QueryProducer {
  const WgPass& wg;
  Ring<kHeadDim> ring;
  QueryInfo* infos;  // of the slots
  int use = 0;

  static __device__ int thread() { return static_cast<int>(threadIdx.x) - 32; }

  /// visit(row, chunk of 16 bytes, shared address) for this thread's part of the tile.
  template <class Visit>
  __device__ void for_each_chunk(const Visit& visit) const {
    const int chunk = thread() % 16;
#pragma unroll 4
    for (int i = thread() / 16; i < kTileRows; i += kQueryThreads / 16)
      visit(i, chunk, ring.slot(use) + chunk / 8 * Tile::kHalfBytes + swizzled(i, chunk % 8));
  }

  __device__ void describe(QueryInfo& info, const QueryTile& tile, int kv_head) const {
    const Pass& pass = wg.pass;
    for (int i = thread(); i < kTileRows; i += kQueryThreads) info.last_key[i] = position_of(pass, tile, i);
    if (thread() != 0) return;
    info.count = tile.count;
    info.row = tile.row;
    info.kv_head = kv_head;
    info.tiles = tiles_of_keys(pass, tile);
    info.unmasked = position_of(pass, tile, 0) + 1;
    info.kv_length = pass.op.batch.kv_length[tile.sequence];
    info.factors = factors_of(pass, kv_head);
  }

  __device__ void produce(const QueryTile& tile, int kv_head) {
    ring.wait_empty(use);
    for_each_chunk([&](int i, int chunk, unsigned to) {
      const bool valid = i < tile.count;
      copy16(to, query_at(wg.pass, wg.pass.op.q, tile.row, kv_head, valid ? i : 0) + chunk * 8, valid);
    });
    commit_copies();
    describe(infos[use % 2], tile, kv_head);
    wait_copies<0>();
    if constexpr (kCodes) {
      const float q_scale = wg.pass.op.q_scale[kv_head];
      for_each_chunk([&](int, int, unsigned at) { store_shared16(at, query_codes(load_shared16(at), q_scale)); });
    }
    fence_shared();
    arrive(ring.full(use++));
  }

  __device__ void run() {
    const Items items = wg.items();
    for (int round = 0; round < items.rounds(); ++round) {
      const int item = items.at(round);
      if (item >= items.count) continue;
      const QueryTile tile = wg.query_tile(item);
      if (tile.sequence >= 0) produce(tile, wg.pass.first_head + wg.local_head(item));
    }
    ring.wait_empty(use);
    if (thread() == 0) infos[use % 2].count = 0;
    arrive(ring.full(use));
  }
};

/// Values of tokens beyond the sequence weigh nothing, but what lies there may be NaN.
__device__ inline void zero_values(char* values, int rows_left) {
  if (rows_left >= kWgKeys) return;
  for (int i = rows_left * 16 + static_cast<int>(threadIdx.x) - kProducers; i < kWgKeys * 16; i += kConsumers) {
    const int row = i / 16, chunk = i % 16;
    *reinterpret_cast<uint4*>(values + chunk / 8 * Tile::kHalfBytes + swizzled(row, chunk % 8)) = {};
  }
  fence_shared();
  sync_threads(kAllConsumers, kConsumers);
}

/// Writes this warp's 16 rows of the output by way of its queries' place in shared memory.
__device__ inline void store_rows(const WgPass& wg, const QueryInfo& info, const WgAttention<kHeadDim>& rows,
                                  char* queries) {
  const int warp = (static_cast<int>(threadIdx.x) - kProducers) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  sync_threads(kFirstRows + consumer_group(), 128);  // the warpgroup reads its queries no more
  char* staged = queries + warp * 16 * 128;
  rows.write(staged, info.factors.out);
  __syncwarp();
#pragma unroll 4
  for (int i = lane; i < 16 * 16; i += 32) {
    const int row = i / 16, chunk = i % 16;
    if (warp * 16 + row >= info.count) continue;
    auto* to = const_cast<__nv_bfloat16*>(query_at(wg.pass, wg.pass.op.out, info.row, info.kv_head, warp * 16 + row));
    *reinterpret_cast<uint4*>(to + chunk * 8) =
        *reinterpret_cast<const uint4*>(staged + chunk / 8 * Tile::kHalfBytes + swizzled(row, chunk % 8));
  }
}

template <bool kCodes>
__device__ inline void consume(const WgPass& wg, const Rings& rings, const QueryInfo* infos, char* memory) {
  const int group = consumer_group(), lane = static_cast<int>(threadIdx.x) % 32;
  const int row = (static_cast<int>(threadIdx.x) - kProducers) / 32 * 16 + lane / 4;
  const auto pointer = [&](unsigned address) { return memory + (address - rings.queries.slots); };
  WgAttention<kHeadDim> rows;
  int tiles_done = 0;
  if (group == 1) pass_turn(group);
  for (int use = 0;; ++use) {
    rings.queries.wait_full(use);
    const QueryInfo& info = infos[use % 2];
    if (info.count == 0) break;
    const int last[2] = {info.last_key[row], info.last_key[row + 8]}, tiles = info.tiles;
    const unsigned queries = rings.queries.slot(use);
    attend<kCodes>(
        rows, rings, queries + group * 64 * 128, tiles_done, tiles, info.factors.score,
        kCodes ? 1.0f / wg.pass.op.prob_scale : 1.0f,
        [&](int j) {
          if ((j + 1) * kWgKeys > info.unmasked) rows.mask(j * kWgKeys, last);
        },
        [&](unsigned values) { zero_values(pointer(values), info.kv_length - (tiles - 1) * kWgKeys); });
    store_rows(wg, info, rows, pointer(queries));
    rings.queries.release(use);
    tiles_done += tiles;
  }
}

/// A block stays on its multiprocessor and takes item after item: copies for the next run behind the products.
template <bool kCodes>
__global__ void __launch_bounds__(kWgThreads, 1) prefill_attention_wgmma_kernel(const __grid_constant__ WgPass wg) {
#if QWENBENCH_WARPGROUP_PRODUCTS
  extern __shared__ __align__(1024) char memory[];
  const Rings rings(shared_address(memory));
  auto* infos = reinterpret_cast<QueryInfo*>(memory + Rings::kBytes);
  if (threadIdx.x == 0) rings.init(kQueryThreads);
  __syncthreads();
  wait_for_previous();
  let_next_start();
  if (threadIdx.x < kProducers) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x < 32)
      KvProducer{wg, rings}.run();
    else
      QueryProducer<kCodes>{wg, rings.queries, infos}.run();
  } else {
    take_registers<kConsumerRegisters>();
    consume<kCodes>(wg, rings, infos, memory);
  }
#endif
}

/// k or v as rows of 128. How many rows a paged cache has is not known here; none beyond it is asked for.
cudaError_t map_rows(const Pass& pass, const __nv_bfloat16* data, int box_rows, CUtensorMap& map) {
  constexpr std::uint64_t kManyRows = 0x7fffffff;
  const std::uint64_t rows = pass.expanded ? static_cast<std::uint64_t>(pass.head_tokens) * pass.num_heads : kManyRows;
  return make_tensor_map({data, 2, {kHeadDim, rows}, {kHeadDim * 2}, {64, static_cast<unsigned>(box_rows)}}, map);
}

template <bool kCodes>
cudaError_t start(const WgPass& wg, cudaStream_t stream) {
  const int items = query_tiles(wg.pass) * wg.pass.num_heads;
  return launch_wgmma(prefill_attention_wgmma_kernel<kCodes>, items, kWgThreads, Rings::kBytes + 2 * sizeof(QueryInfo),
                      stream, wg);
}

}  // namespace

bool prefill_attention_wgmma_runs() { return has_wgmma_code(prefill_attention_wgmma_kernel<false>); }

cudaError_t prefill_attention_wgmma(const Pass& pass, cudaStream_t stream) {
  WgPass wg;
  wg.pass = pass;
  wg.box_rows = pass.expanded || pass.op.cache.block_size > kWgKeys ? kWgKeys : pass.op.cache.block_size;
  cudaError_t error = map_rows(pass, pass.k, wg.box_rows, wg.keys);
  if (error == cudaSuccess) error = map_rows(pass, pass.v, wg.box_rows, wg.values);
  if (error != cudaSuccess) return error;
  return pass.op.q_scale ? start<true>(wg, stream) : start<false>(wg, stream);
}

}  // namespace qwenbench::kernels
