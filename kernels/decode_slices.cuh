// Which tiles of the cache a thread block of decode attention takes, and where they lie: all sequences' tiles in the
// order (sequence, KV head, tile), cut into slices of equal length.
#pragma once

#include "kernels/attention_device.cuh"
#include "kernels/decode_attention.h"

namespace qwenbench::kernels::decode {

using namespace device;

constexpr int kTileTokens = 16;
constexpr int kLookAhead = 32;     // tiles whose place in the cache is looked up at once, one a lane
constexpr int kNewest = 32;        // flag of a tile that holds a sequence's newest token
constexpr int kShortSlice = 24;    // tiles: a longer one is worth another thread block
constexpr int kLongContext = 128;  // tiles of a layer: 64 layers with more of FP8 would fill most of L2
constexpr int kWholeItem = 128;    // tiles of an item that two or three blocks do not share: combining takes longer
constexpr int kMinTiles = 8;       // of a thread block that shares an item: fewer are not worth another part to combine

/// Sizes of a launch that host and device agree on.
struct Shape {
  int group;       // query heads of a KV head
  int log2_block;  // of the cache's block_size
  int counters;    // where in the workspace they begin, in ints
};

/// What a thread block keeps of the batch in shared memory.
struct Sequences {
  int* tiles_before;  // [num_seqs + 1] tiles of one KV head of the sequences before s
  int* length;        // [num_seqs] 0: not computed here
  int* first_row;     // [num_seqs]
  int* active;        // number of sequences that have any tiles
  int* longest;       // tiles of one KV head of a sequence at most

  static constexpr int bytes(int num_seqs) { return (3 * num_seqs + 3) * static_cast<int>(sizeof(int)); }
  __device__ Sequences(char* shared, int num_seqs)
      : tiles_before(reinterpret_cast<int*>(shared)),
        length(tiles_before + num_seqs + 1),
        first_row(length + num_seqs),
        active(first_row + num_seqs),
        longest(active + 1) {}

  /// Called by the first warp.
  __device__ void load(const PagedBatch& batch) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0, count = 0, most = 0;
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
      most = max(most, __reduce_max_sync(kAllLanes, sum));
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
      *longest = most;
    }
  }
};

struct Slices {
  int total, blocks;  // tiles; thread blocks that have any
  __device__ int begin(int block) const { return static_cast<int>(static_cast<std::int64_t>(total) * block / blocks); }
  __device__ int owner(int tile) const {
    return static_cast<int>(((static_cast<std::int64_t>(tile) + 1) * blocks - 1) / total);
  }
};

/// Slices for a grid. Where hardly any block is lost by it, or slices stay short, every item begins with a block's
/// slice (of sequences of one length), and is one where few blocks would share it and it is not long.
__device__ inline Slices make_slices(const Sequences& sequences, int num_seqs, int kv_heads, int grid) {
  Slices slices;
  slices.total = sequences.tiles_before[num_seqs] * kv_heads;
  const int items = *sequences.active * kv_heads;
  slices.blocks = min(grid, max(slices.total / kMinTiles, max(items, 1)));
  if (items > 0 && items <= slices.blocks) {
    const int share = slices.blocks / items, whole = share * items;
    const bool even = 8 * *sequences.longest * items <= 9 * slices.total;
    if (share < 4 && even && *sequences.longest <= kWholeItem)
      slices.blocks = items;
    else if (16 * whole >= 15 * slices.blocks || slices.total <= whole * kShortSlice)
      slices.blocks = whole;
  }
  return slices;
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

}  // namespace qwenbench::kernels::decode
