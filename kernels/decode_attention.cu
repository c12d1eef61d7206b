#include <algorithm>

#include "kernels/decode_attention.h"
#include "kernels/decode_combine.cuh"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace {

using namespace decode;

/// What K, V and queries of an item stand for.
struct ItemScales {
  float k = 1, v = 1, q = 1;
  template <class R, bool kCodes>
  __device__ void load(const DecodeAttention& op, int kv_head) {
    if (R::kFp8) k = op.cache.k_scale[kv_head], v = op.cache.v_scale[kv_head];
    if (kCodes) q = op.q_scale[kv_head], v *= op.prob_scale;
  }
};

/// The queries of an item, bf16 [group][128].
__device__ __forceinline__ void turn_queries(const DecodeAttention& op, int token, int kv_head, int group,
                                             __nv_bfloat16* to) {
  const int lane = static_cast<int>(threadIdx.x) % kLanesPerHead,
            at_once = static_cast<int>(blockDim.x) / kLanesPerHead;
  HeadTurn turn;
  turn.load(op.raw, token, true, lane);
  // The last warps first: those with fewer tiles.
  for (int first = at_once - 1 - static_cast<int>(threadIdx.x) / kLanesPerHead, round = 0; round < group;
       first += at_once, round += at_once) {
    const int query = min(first, group - 1);  // all lanes take part in the shuffles
    HeadRow x;
    x.load(op.raw, token, kv_head * group + query, lane, op.raw_is_announced);
    const Vector8 turned = x.turned(turn);
    if (first < group) store8(to + query * kHeadDim, lane, turned);
  }
}

template <class R, int kColumns, bool kCodes>
__global__ void __launch_bounds__(R::kThreads, 1)
    decode_attention_kernel(const __grid_constant__ DecodeAttention op, const Shape shape) {
  extern __shared__ __align__(1024) char shared[];
  __shared__ WarpParts<R, kColumns> warp_parts;
  __shared__ __align__(16) __nv_bfloat16 queries[8 * kColumns * kHeadDim];
  const int warp = static_cast<int>(threadIdx.x) / 32, block = static_cast<int>(blockIdx.x);
  const int num_seqs = op.batch.num_seqs, kv_heads = op.cache.kv_heads;
  Sequences sequences(shared + R::kBytes, num_seqs);
  if (warp == 0) sequences.load(op.batch);
  __syncthreads();
  const Slices slices = make_slices(sequences, num_seqs, kv_heads, static_cast<int>(gridDim.x));
  if (block >= slices.blocks || slices.total == 0) {
    // Some block must, or the launch might end before what comes before it, and the next one with it.
    if (!op.raw_is_announced || slices.total == 0) wait_for_previous();
    return;
  }
  const int begin = slices.begin(block), end = slices.begin(block + 1);
  TileRing<R> ring(op, sequences, shape.log2_block - 4, begin + warp, end, slices.total > kLongContext,
                   shared + warp * R::kStages * R::kStageBytes);
  ring.begin();
  const Item first_item = find_item(sequences.tiles_before, num_seqs, kv_heads, begin);
  ItemScales scales;
  scales.template load<R, kCodes>(op, first_item.kv_head);
  NewestTokens<R> newest(op, sequences, begin, end);
  bool has_newest = newest.next();
  if (!op.raw_is_announced) wait_for_previous();
  let_next_start();  // announced rows: of what follows, decode_chain() alone, which brings weights meanwhile
  const bool is_raw = op.raw.qkv != nullptr;
  // What comes once a launch stands once in the code: neither it nor the kernels in front and behind have been executed
  // since the last layer, and instructions that are in no cache are what takes longest.
#pragma unroll 1
  for (; has_newest; has_newest = newest.next()) {
    if (!is_raw) {
      if (ring.begins_with(newest.tile())) ring.copy_again(newest.tile());
      continue;
    }
    NewestRow<R> row;
    row.load(newest);
    row.finish(newest);
    if (ring.begins_with(newest.tile())) ring.put(newest.tile(), newest.row(), row);
    row.append(newest);
  }

  Accumulator<R, kColumns, kCodes> acc;
  acc.per_code = kCodes ? 1.0f / op.prob_scale : 1.0f;
  float2* parts = static_cast<float2*>(op.workspace);
  int* counters = static_cast<int*>(op.workspace) + shape.counters;
  int tile = begin + warp;
#pragma unroll 1
  for (int at = begin; at < end;) {
    const Item item = find_item(sequences.tiles_before, num_seqs, kv_heads, at);
    const int stop = min(item.end, end);
    const int length = sequences.length[item.sequence];
    const std::int64_t row = static_cast<std::int64_t>(sequences.first_row[item.sequence]) * op.heads;
    const std::int64_t offset = (row + item.kv_head * shape.group) * kHeadDim;
    acc.clear();
    if (is_raw) {  // add_warps() has ended with a barrier
      turn_queries(op, sequences.first_row[item.sequence], item.kv_head, shape.group, queries);
      __syncthreads();
    }
    if (at > begin) scales.template load<R, kCodes>(op, item.kv_head);
    if (tile < stop)
      acc.load_queries(is_raw ? queries : static_cast<const __nv_bfloat16*>(op.q) + offset, shape.group, scales.k,
                       scales.q);
    for (; tile < stop; tile += R::kWarps)
      acc.add_tile(ring.advance(), min(kTileTokens, length - (tile - item.begin) * kTileTokens));

    const Output output{static_cast<__nv_bfloat16*>(op.out) + offset, shape.group, scales.v * op.out_factor};
    const bool complete = item.begin >= begin && item.end <= end;
    float2* part = part_of(parts, block, begin >= item.begin ? 0 : 1);
    add_warps(warp_parts, acc, reinterpret_cast<float2*>(ring.spare()), (at - begin) % R::kWarps,
              min(R::kWarps, stop - at), shape.group, [&](int index, int query, int dim, const Part& sum) {
                if (complete)
                  output.template store<Pair<R>::kStep>(query, dim, sum);
                else
                  leave(part, index, query, dim, sum);
              });
    if (!complete) {
      const int first = slices.owner(item.begin), last = slices.owner(item.end - 1);
      const int first_slot = slices.begin(first) >= item.begin ? 0 : 1;  // the others begin within the item
      if (is_last_to_leave(counters + item.sequence * kv_heads + item.kv_head, last - first + 1))
        add_blocks<R, kColumns>(parts, first, last, first_slot, output);
    }
    at = stop;
  }
  if (op.raw_is_announced) wait_for_previous();  // this launch must not end first
}

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

/// Of all parts, which lie in front of the counters: where these are depends on the device alone, not on the batch.
int part_floats() { return multiprocessors() * 2 * kPartFloats; }

template <class R, int kColumns, bool kCodes>
cudaError_t start(const DecodeAttention& op, const Shape& shape, cudaStream_t stream) {
  const int bytes = R::kBytes + Sequences::bytes(op.batch.num_seqs);
  const auto kernel = decode_attention_kernel<R, kColumns, kCodes>;
  const cudaError_t error = allow_shared_memory(kernel, bytes);
  if (error != cudaSuccess) return error;
  const long long items = static_cast<long long>(op.batch.num_seqs) * op.cache.kv_heads,
                  tiles = items * ((op.max_kv_length + kTileTokens - 1) / kTileTokens);
  const int grid = static_cast<int>(std::min<long long>(std::max(tiles / kMinTiles, items), multiprocessors()));
  return launch(kernel, grid, R::kThreads, bytes, stream, op, shape);
}

/// Whether a block may take the large ring and all that it keeps beside it.
bool has_room_for_large_ring(const DecodeAttention& op) {
  constexpr int kBeside = sizeof(WarpParts<Ring<KvDtype::kFp8E4M3, RingSize::kLarge>, 2>) + 64;
  const int device_limit = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int limit = op.shared_limit > 0 ? std::min(op.shared_limit, device_limit) : device_limit;
  return limit >= Ring<KvDtype::kFp8E4M3, RingSize::kLarge>::kBytes + Sequences::bytes(kMaxDecodeSequences) + kBeside;
}

template <KvDtype kDtype, bool kCodes>
cudaError_t start_form(const DecodeAttention& op, const Shape& shape, cudaStream_t stream) {
  using Large = Ring<kDtype, RingSize::kLarge>;
  using Small = Ring<kDtype, RingSize::kSmall>;
  const bool one = shape.group <= 8;
  if (has_room_for_large_ring(op)) return (one ? start<Large, 1, kCodes> : start<Large, 2, kCodes>)(op, shape, stream);
  return (one ? start<Small, 1, kCodes> : start<Small, 2, kCodes>)(op, shape, stream);
}

}  // namespace

std::size_t decode_attention_workspace_bytes(int num_seqs, int, int kv_heads) {
  return static_cast<std::size_t>(part_floats()) * sizeof(float) +
         static_cast<std::size_t>(num_seqs) * kv_heads * sizeof(int);
}

cudaError_t decode_attention(const DecodeAttention& op, cudaStream_t stream) {
  if (op.batch.num_seqs == 0) return cudaSuccess;
  Shape shape;
  shape.group = op.heads / op.cache.kv_heads;
  shape.counters = part_floats();
  shape.log2_block = 4;
  while ((1 << shape.log2_block) < op.cache.block_size) ++shape.log2_block;
  if (shape.group < 1 || shape.group > kMaxGroup || shape.group * op.cache.kv_heads != op.heads ||
      (1 << shape.log2_block) != op.cache.block_size || op.batch.num_seqs > kMaxDecodeSequences)
    return cudaErrorInvalidValue;
  if (op.raw_is_announced && !op.raw.qkv) return cudaErrorInvalidValue;
  if (op.raw.qkv && (op.raw.k_out || op.raw.v_out || op.raw.heads != op.heads)) return cudaErrorInvalidValue;
  if (op.q_scale) {
    if (op.cache.dtype != KvDtype::kFp8E4M3 || !(op.prob_scale > 0)) return cudaErrorInvalidValue;
    return start_form<KvDtype::kFp8E4M3, true>(op, shape, stream);
  }
  if (op.cache.dtype == KvDtype::kFp8E4M3) return start_form<KvDtype::kFp8E4M3, false>(op, shape, stream);
  return start_form<KvDtype::kBFloat16, false>(op, shape, stream);
}

}  // namespace qwenbench::kernels
