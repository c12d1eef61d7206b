// Adds up what warps, and then thread blocks, have summed of a softmax: in a fixed order, whoever came first.
#pragma once

#include "kernels/decode_accumulator.cuh"
#include "kernels/decode_item_inputs.cuh"

namespace qwenbench::kernels::decode {

constexpr int kPairs = 8 * kHeadDim / 2;                 // of outputs, of 8 queries
constexpr int kPartFloats = kMaxGroup * (kHeadDim + 2);  // unnormalised outputs, maxima, sums

/// The place of a pair of outputs as Accumulator::save() writes them: dims dim and dim + kStep.
template <class R>
struct Pair {
  static constexpr int kStep = R::kFp8 ? 1 : 8;
  int query, dim;  // query within its column of 8
  __device__ explicit Pair(int index) {
    const int lane = index % 32, j = index / 32 % 2, m = index / 64;
    query = lane % 4 * 2 + j;
    dim = 16 * m + lane / 4 * (kStep == 1 ? 2 : 1);
  }
};

/// A part of the softmax of one query and two dims.
struct Part {
  float2 out = {0, 0};
  float maximum = kNoMaximum, sum = 0;
};

/// Adds up n parts: load(i, ends, out) reads the maximum and sum, and the outputs, of the i-th.
template <int kBatch, class Load>
__device__ inline Part add_up(int n, const Load& load) {
  Part total;
  for (int first = 0; first < n; first += kBatch) {
    float2 ends[kBatch], out[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      ends[i] = make_float2(kNoMaximum, 0);
      out[i] = make_float2(0, 0);
      if (first + i < n) load(first + i, ends[i], out[i]);
    }
    float top = total.maximum;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) top = fmaxf(top, ends[i].x);
    const float shrink = exp2_fast(total.maximum - top);
    total.maximum = top;
    total.sum *= shrink;
    total.out.x *= shrink;
    total.out.y *= shrink;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const float weight = exp2_fast(ends[i].x - top);
      total.sum += ends[i].y * weight;
      total.out.x += out[i].x * weight;
      total.out.y += out[i].y * weight;
    }
  }
  return total;
}

/// Where the outputs of an item go.
struct Output {
  __nv_bfloat16* rows;  // of the group's first query head
  int group;
  float scale;

  template <int kStep>
  __device__ void store(int query, int dim, const Part& part) const {
    const float factor = scale / part.sum;
    __nv_bfloat16* to = rows + query * kHeadDim + dim;
    if constexpr (kStep == 1) {
      *reinterpret_cast<unsigned*>(to) = pack<false>(part.out.x * factor, part.out.y * factor);
    } else {
      to[0] = __float2bfloat16_rn(part.out.x * factor);
      to[kStep] = __float2bfloat16_rn(part.out.y * factor);
    }
  }
};

/// What a thread block's warps tell each other, in shared memory.
template <class R, int kColumns>
struct WarpParts {
  float2 ends[R::kWarps][8 * kColumns];  // maximum and sum
  const float2* saved[R::kWarps];        // outputs
};

/// Adds up what the block's warps have of an item, `warps` of them from first_warp on; `spare` is the warp's own memory
/// for outputs of 8 queries. Calls emit(index, query, dim, part) for each pair of outputs of the group.
template <class R, int kColumns, bool kCodes, class Emit>
__device__ inline void add_warps(WarpParts<R, kColumns>& parts, Accumulator<R, kColumns, kCodes>& acc, float2* spare,
                                 int first_warp, int warps, int group, const Emit& emit) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (lane == 0) parts.saved[warp] = spare;
  acc.sum_over_lanes();
  __syncwarp();
  if (lane < 4) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        parts.ends[warp][8 * c + 2 * lane + j] = make_float2(acc.maximum[c][j], acc.sum[c][j]);
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    acc.save(spare, c);
    __syncthreads();
    for (int i = thread; i < kPairs; i += R::kThreads) {
      const Pair<R> pair(i);
      const int query = 8 * c + pair.query;
      const Part sum = add_up<4>(warps, [&](int n, float2& ends, float2& out) {
        const int w = first_warp + n < R::kWarps ? first_warp + n : first_warp + n - R::kWarps;
        ends = parts.ends[w][query];
        out = parts.saved[w][i];
      });
      if (query < group) emit(c * kPairs + i, query, pair.dim, sum);
    }
    __syncthreads();
  }
}

/// A thread block leaves at most two parts in the workspace: of the item it begins in the middle of or at (slot 0), and
/// of the one that goes on after its end (slot 1).
__device__ inline float2* part_of(float2* parts, int block, int slot) {
  return parts + (static_cast<std::int64_t>(block) * 2 + slot) * (kPartFloats / 2);
}

/// The pair `index` of a part, of query `query`: emit() of add_warps().
__device__ inline void leave(float2* part, int index, int query, int dim, const Part& sum) {
  part[index] = sum.out;
  if (dim == 0) part[kMaxGroup * kHeadDim / 2 + query] = make_float2(sum.maximum, sum.sum);
}

/// Whether this block is the last of `blocks` that have left a part of an item; its counter is then ready for the next
/// launch.
__device__ inline bool is_last_to_leave(int* counter, int blocks) {
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(counter, 1) == blocks - 1;
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

/// Adds up the parts that blocks first ... last have left of an item; the first's lies in first_slot.
template <class R, int kColumns>
__device__ inline void add_blocks(float2* parts, int first, int last, int first_slot, const Output& output) {
  for (int i = static_cast<int>(threadIdx.x); i < kColumns * kPairs; i += R::kThreads) {
    const Pair<R> pair(i % kPairs);
    const int query = i / kPairs * 8 + pair.query;
    if (query >= output.group) continue;
    const Part sum = add_up<8>(last - first + 1, [&](int n, float2& ends, float2& out) {
      const float2* from = part_of(parts, first + n, n == 0 ? first_slot : 0);
      ends = __ldcg(from + kMaxGroup * kHeadDim / 2 + query);
      out = __ldcg(from + i);
    });
    output.template store<Pair<R>::kStep>(query, pair.dim, sum);
  }
}

}  // namespace qwenbench::kernels::decode
