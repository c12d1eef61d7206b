// Which tiles of the cache a thread block of decode attention takes, and where they lie: all sequences' tiles in the
// order (sequence, KV head, tile), cut into slices of equal length. A step's kernels, one a layer, find it in a plan:
// they have been in no cache since the last layer, so that each instruction which they do without counts.
#pragma once

#include "kernels/attention_device.cuh"
#include "kernels/decode_attention.h"

namespace qwenbench::kernels::decode {

using namespace device;

constexpr int kTileTokens = 16;
constexpr int kMaxDecodeBlocks = 1024;
constexpr int kLookAhead = 32;     // tiles whose place in the cache is looked up at once, one a lane
constexpr int kNewest = 32;        // flag of a tile that holds a sequence's newest token
constexpr int kShortSlice = 24;    // tiles: a longer one is worth another thread block
constexpr int kLongContext = 128;  // tiles of a layer: 64 layers with more of FP8 would fill most of L2
constexpr int kWholeItem = 128;    // tiles of an item that two or three blocks do not share: combining takes longer
constexpr int kMinTiles = 8;       // of a thread block that shares an item: fewer are not worth another part to combine

/// A sequence's KV head: its tiles [begin, end) in the order above.
struct Item {
  int begin, end;
  int sequence, kv_head;
  int length, row;  // tokens of the sequence, and where its new one stands
  int shared_by;    // what share() made of the blocks that have some of its tiles
  int counter;      // of those that have left their parts; zero between launches

  /// first_slot: which of its two parts (part_of()) the first of them leaves.
  __device__ static int share(int first_block, int last_block, int first_slot) {
    return first_block | last_block << 12 | first_slot << 24;
  }
  __device__ int first_block() const { return shared_by & 0xfff; }
  __device__ int last_block() const { return shared_by >> 12 & 0xfff; }
  __device__ int first_slot() const { return shared_by >> 24; }
};
static_assert(sizeof(Item) == 32);

/// A thread block's tiles [begin, end), and the first of its items among all.
struct Slice {
  int begin, end;
  int first_item;
  int total;  // tiles of all blocks
  int unused[4];
};

/// What a thread block reads of the plan: its slice, and as many of its items as usually suffice.
struct BlockPlan {
  static constexpr int kItems = 31;
  Slice slice;
  Item items[kItems];
};
static_assert(sizeof(BlockPlan) == 1024);

/// In the workspace.
struct Plan {
  BlockPlan* blocks;  // [grid]
  Item* items;        // [num_seqs * kv_heads], those of sequences that are computed in front
};

/// Thread blocks of a launch; by no device data.
int decode_grid(const DecodeAttention& op);
Plan plan_of(const DecodeAttention& op);

/// What a launch has beside its arguments.
struct Shape {
  int group;       // query heads of a KV head
  int log2_block;  // of the cache's block_size
  Plan plan;
};

/// A thread block's plan in shared memory, and behind it the items that have no room there.
class BlockSlice {
 public:
  __device__ BlockSlice(const BlockPlan& mine, const Plan& plan) : slice_(mine.slice), near_(mine.items), plan_(plan) {
    asm volatile("" : "+l"(near_));  // an address of either kind, or each use would make it one
  }
  __device__ int begin() const { return slice_.begin; }
  __device__ int end() const { return slice_.end; }
  __device__ int total() const { return slice_.total; }
  /// The i-th of the block's items.
  __device__ const Item& item(int i) const { return (i < BlockPlan::kItems ? near_ : all())[i]; }
  /// Its counter, in the workspace.
  __device__ int* counter(int i) const { return &all()[i].counter; }

 private:
  __device__ Item* all() const { return plan_.items + slice_.first_item; }

  const Slice& slice_;
  const Item* near_;
  const Plan& plan_;
};

/// Where the next tiles of a warp lie: one tile a lane, looked up ahead of time.
template <int kWarps>
struct TileFinder {
  const DecodeAttention& op;
  const BlockSlice& slice;
  int log2_tiles;                 // tiles of a block of the cache and one head
  int first;                      // tiles first, first + kWarps, ... of the slice
  int item = 0;                   // of the tile that was looked up last
  int block, within, next_valid;  // of the next kLookAhead tiles
  std::int64_t place = 0;         // of the current ones, in tiles from the start of the layer
  int valid = 0;                  // tokens of the tile that exist, perhaps with kNewest

  __device__ TileFinder(const DecodeAttention& op, const BlockSlice& slice, int log2_tiles, int first)
      : op(op), slice(slice), log2_tiles(log2_tiles), first(first) {
    look_up(0);
  }

  __device__ void look_up(int n) {
    const int tile = first + (n + static_cast<int>(threadIdx.x) % 32) * kWarps;
    block = within = next_valid = 0;
    if (tile >= slice.end()) return;
    while (tile >= slice.item(item).end) ++item;
    const Item& of = slice.item(item);
    const int at = tile - of.begin;
    next_valid = min(kTileTokens, of.length - at * kTileTokens);
    if (tile == of.end - 1) next_valid |= kNewest;
    block = op.batch.block_table[static_cast<std::int64_t>(of.sequence) * op.batch.max_blocks + (at >> log2_tiles)];
    within = (of.kv_head << log2_tiles) + (at & ((1 << log2_tiles) - 1));
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
