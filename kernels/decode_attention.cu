#include <algorithm>

#include "kernels/decode_attention.h"
#include "kernels/decode_combine.cuh"
#include "kernels/launch.h"

namespace qwenbench::kernels {
namespace {

using namespace decode;

template <class R, int kColumns, bool kCodes>
__global__ void __launch_bounds__(R::kThreads, 1)
    decode_attention_kernel(const __grid_constant__ DecodeAttention op, const Shape shape) {
  extern __shared__ __align__(1024) char shared[];
  __shared__ WarpParts<R, kColumns> warp_parts;
  __shared__ ItemInputs<R, kColumns> inputs;
  __shared__ __align__(16) BlockPlan plan;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  ItemInputsLoader<R, kColumns, kCodes> loader(op, shape.group, inputs);
  if (threadIdx.x == 0) loader.init();
  // Past the first-level cache: this block may have started before the kernel in front of it has ended.
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(plan) / sizeof(uint4)); i += R::kThreads)
    reinterpret_cast<uint4*>(&plan)[i] = __ldcg(reinterpret_cast<const uint4*>(shape.plan.blocks + blockIdx.x) + i);
  __syncthreads();
  const BlockSlice slice(plan, shape.plan);
  const int begin = slice.begin(), end = slice.end();
  if (begin == end) {
    // Some block must, or the launch might end before what comes before it, and the next one with it.
    if (!op.raw_is_announced || blockIdx.x == 0) wait_for_previous();
    return;
  }
  TileRing<R> ring(op, slice, shape.log2_block - 4, begin + warp, slice.total() > kLongContext,
                   shared + warp * R::kStages * R::kStageBytes);
  NewestTokens<R> newest(op, slice);
  bool has_newest = newest.next();
  NewestRow<R> newest_row;
  // Rows as the projection wrote them are asked for in front of the tiles: behind them they would wait for all of
  // these.
  const bool is_raw = op.raw.qkv != nullptr;
  if (is_raw) {
    if (!op.raw_is_announced) wait_for_previous();
    if (has_newest) newest_row.load(newest);
  }
  loader.load(slice.item(0));
  ring.begin();
  if (!is_raw) wait_for_previous();
  let_next_start();  // announced rows: of what follows, decode_chain() alone, which brings weights meanwhile

  // What comes once a launch stands once in the code: neither it nor the kernels in front and behind have been executed
  // since the last layer, and instructions that are in no cache are what takes longest.
#pragma unroll 1
  while (has_newest) {
    if (is_raw) {
      newest_row.finish(newest);
      if (ring.begins_with(newest.tile())) ring.put(newest.tile(), newest.row(), newest_row);
      newest_row.append(newest);
    } else if (ring.begins_with(newest.tile())) {
      ring.copy_again(newest.tile());
    }
    has_newest = newest.next();
    if (has_newest && is_raw) newest_row.load(newest);
  }

  Accumulator<R, kColumns, kCodes> acc;
  acc.per_code = kCodes ? 1.0f / op.prob_scale : 1.0f;
  float2* parts = static_cast<float2*>(op.workspace);
  int tile = begin + warp;
#pragma unroll 1
  for (int at = begin, index = 0; at < end; ++index) {
    const Item& item = slice.item(index);
    const int stop = min(item.end, end), tokens_end = item.begin * kTileTokens + item.length;
    const std::int64_t offset =
        (static_cast<std::int64_t>(item.row) * op.heads + item.kv_head * shape.group) * kHeadDim;
    acc.clear();
    if (at > begin) loader.load(item);
    loader.store();  // add_warps() has ended with a barrier
    loader.wait(index);
    if (index == 0) ring.go_on();
    if (tile < stop)
      acc.load_queries(is_raw ? inputs.queries : static_cast<const __nv_bfloat16*>(op.q) + offset, shape.group,
                       inputs.k_scale, inputs.q_scale);
    for (; tile < stop; tile += R::kWarps)
      acc.add_tile(ring.advance(), min(kTileTokens, tokens_end - tile * kTileTokens));

    const Output output{static_cast<__nv_bfloat16*>(op.out) + offset, shape.group, inputs.v_scale * op.out_factor};
    const bool complete = item.begin >= begin && item.end <= end;
    float2* part = part_of(parts, static_cast<int>(blockIdx.x), begin >= item.begin ? 0 : 1);
    add_warps(warp_parts, acc, reinterpret_cast<float2*>(ring.spare()), (at - begin) % R::kWarps,
              min(R::kWarps, stop - at), shape.group, [&](int index, int query, int dim, const Part& sum) {
                if (complete)
                  output.template store<Pair<R>::kStep>(query, dim, sum);
                else
                  leave(part, index, query, dim, sum);
              });
    if (!complete && is_last_to_leave(slice.counter(index), item.last_block() - item.first_block() + 1))
      add_blocks<R, kColumns>(parts, item.first_block(), item.last_block(), item.first_slot(), output);
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

/// Of the plan in the workspace, behind all parts.
std::size_t plan_offset() { return static_cast<std::size_t>(multiprocessors()) * 2 * kPartFloats * sizeof(float); }

template <class R, int kColumns, bool kCodes>
cudaError_t start(const DecodeAttention& op, const Shape& shape, cudaStream_t stream) {
  const auto kernel = decode_attention_kernel<R, kColumns, kCodes>;
  const cudaError_t error = allow_shared_memory(kernel, R::kBytes);
  if (error != cudaSuccess) return error;
  return launch(kernel, decode_grid(op), R::kThreads, R::kBytes, stream, op, shape);
}

/// Whether a block may take the large ring and all that it keeps beside it.
bool has_room_for_large_ring(const DecodeAttention& op) {
  using Large = Ring<KvDtype::kFp8E4M3, RingSize::kLarge>;
  constexpr int kBeside = sizeof(WarpParts<Large, 2>) + sizeof(ItemInputs<Large, 2>) + sizeof(BlockPlan) + 64;
  const int device_limit = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int limit = op.shared_limit > 0 ? std::min(op.shared_limit, device_limit) : device_limit;
  return limit >= Large::kBytes + kBeside;
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

int decode::decode_grid(const DecodeAttention& op) {
  const long long items = static_cast<long long>(op.batch.num_seqs) * op.cache.kv_heads,
                  tiles = items * ((op.max_kv_length + kTileTokens - 1) / kTileTokens);
  return static_cast<int>(std::min<long long>(std::max(tiles / kMinTiles, items), multiprocessors()));
}

decode::Plan decode::plan_of(const DecodeAttention& op) {
  auto* blocks = reinterpret_cast<BlockPlan*>(static_cast<char*>(op.workspace) + plan_offset());
  return {blocks, reinterpret_cast<Item*>(blocks + multiprocessors())};
}

std::size_t decode_attention_workspace_bytes(int num_seqs, int, int kv_heads) {
  return plan_offset() + multiprocessors() * sizeof(decode::BlockPlan) +
         static_cast<std::size_t>(num_seqs) * kv_heads * sizeof(decode::Item);
}

cudaError_t decode_attention(const DecodeAttention& op, cudaStream_t stream) {
  if (op.batch.num_seqs == 0) return cudaSuccess;
  Shape shape;
  shape.group = op.heads / op.cache.kv_heads;
  shape.plan = plan_of(op);
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
