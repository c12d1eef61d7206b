#include <cub/block/block_scan.cuh>

#include "kernels/decode_plan.cuh"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace {

using namespace decode;

constexpr int kThreads = kMaxDecodeSequences;  // one a sequence

struct Totals {
  int tiles, active, longest;  // of all items; sequences that are computed; tiles of one of their items at most
};

/// All tiles, cut into slices of equal length.
struct Slices {
  int total, blocks;  // tiles; thread blocks that have any
  __device__ int begin(int block) const { return static_cast<int>(static_cast<std::int64_t>(total) * block / blocks); }
  __device__ int owner(int tile) const {
    return static_cast<int>(((static_cast<std::int64_t>(tile) + 1) * blocks - 1) / total);
  }
};

/// Where hardly any block is lost by it, or slices stay short, every item begins with a block's slice (of sequences of
/// one length), and is one where few blocks would share it and it is not long.
__device__ Slices make_slices(const Totals& totals, int kv_heads, int grid) {
  Slices slices;
  slices.total = totals.tiles;
  const int items = totals.active * kv_heads;
  slices.blocks = min(grid, max(slices.total / kMinTiles, max(items, 1)));
  if (items > 0 && items <= slices.blocks) {
    const int share = slices.blocks / items, whole = share * items;
    const bool even = 8LL * totals.longest * items <= 9LL * slices.total;
    if (share < 4 && even && totals.longest <= kWholeItem)
      slices.blocks = items;
    else if (16 * whole >= 15 * slices.blocks || slices.total <= whole * kShortSlice)
      slices.blocks = whole;
  }
  return slices;
}

__global__ void __launch_bounds__(kThreads)
    plan_kernel(const __grid_constant__ PagedBatch batch, int kv_heads, int grid, const Plan plan) {
  using Scan = cub::BlockScan<unsigned long long, kThreads>;
  __shared__ typename Scan::TempStorage scan;
  __shared__ int first_item[kMaxDecodeBlocks];
  __shared__ int longest;
  const int s = static_cast<int>(threadIdx.x);
  if (s == 0) longest = 0;
  wait_for_previous();
  int length = 0, row = 0;
  if (s < batch.num_seqs && batch.num_rows[s] == 1) length = batch.kv_length[s], row = batch.first_row[s];
  const int tiles = (length + kTileTokens - 1) / kTileTokens;

  // Tiles of all sequences before this one, and above them how many of these sequences there are.
  unsigned long long before = tiles > 0 ? 1ULL << 32 | static_cast<unsigned>(tiles) : 0, all;
  Scan(scan).ExclusiveSum(before, before, all);
  if (tiles > 0) atomicMax(&longest, tiles);
  __syncthreads();
  const int active = static_cast<int>(all >> 32);
  const Totals totals = {static_cast<int>(all) * kv_heads, active, longest};
  const Slices slices = make_slices(totals, kv_heads, grid);

  if (tiles > 0) {
    for (int head = 0; head < kv_heads; ++head) {
      const int index = static_cast<int>(before >> 32) * kv_heads + head;
      const int begin = static_cast<int>(before) * kv_heads + head * tiles, end = begin + tiles;
      const int first = slices.owner(begin), last = slices.owner(end - 1);
      const int first_slot = slices.begin(first) == begin ? 0 : 1;  // the others begin within the item
      plan.items[index] = {begin, end, s, head, length, row, Item::share(first, last, first_slot), 0};
      for (int block = first + first_slot; block <= last; ++block) first_item[block] = index;
    }
  }
  __syncthreads();

  for (int i = s; i < grid * (BlockPlan::kItems + 1); i += kThreads) {
    const int block = i / (BlockPlan::kItems + 1), at = i % (BlockPlan::kItems + 1) - 1;
    BlockPlan& of = plan.blocks[block];
    const bool works = totals.tiles > 0 && block < slices.blocks;
    if (at < 0)
      of.slice =
          works ? Slice{slices.begin(block), slices.begin(block + 1), first_item[block], totals.tiles, {}} : Slice{};
    else if (works && first_item[block] + at < active * kv_heads)
      of.items[at] = plan.items[first_item[block] + at];
  }
  __threadfence();  // the next kernel may look before it has waited for this one's end
}

}  // namespace

cudaError_t plan_decode_attention(const DecodeAttention& op, cudaStream_t stream) {
  if (op.batch.num_seqs == 0) return cudaSuccess;
  const int grid = decode_grid(op);
  if (op.batch.num_seqs > kMaxDecodeSequences || grid > kMaxDecodeBlocks) return cudaErrorInvalidValue;
  return launch(plan_kernel, 1, kThreads, 0, stream, op.batch, op.cache.kv_heads, grid, plan_of(op));
}

}  // namespace qwenbench::kernels
