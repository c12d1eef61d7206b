// What the warps of a thread block share of an item besides its tiles: scales, and query heads that come as the QKV
// projection wrote them.
#pragma once

#include "kernels/decode_ring.cuh"
#include "kernels/shared_barrier.cuh"

namespace qwenbench::kernels::decode {

constexpr int kMaxGroup = 16;

template <class R, int kColumns>
struct ItemInputs {
  __align__(16) __nv_bfloat16 queries[8 * kColumns * kHeadDim];  // [group][128], after norm and RoPE
  float k_scale, v_scale, q_scale;                               // what K, V and queries stand for
  unsigned long long barrier;
};

/// The first warps bring them: warp w two query heads, kLanesPerHead lanes each, and warp 0 the scales. All is asked
/// for by load(), in advance, and shared by store(); nobody waits but for what is stored.
template <class R, int kColumns, bool kCodes>
class ItemInputsLoader {
 public:
  using Inputs = ItemInputs<R, kColumns>;

  __device__ ItemInputsLoader(const DecodeAttention& op, int group, Inputs& inputs)
      : op_(op), group_(op.raw.qkv ? group : 0), inputs_(inputs) {}

  /// By one thread, before a barrier of the block.
  __device__ void init() const {
    init_barrier(shared_address(&inputs_.barrier), 32 * min(R::kWarps, max(1, (group_ + 1) / 2)));
  }
  __device__ void load(const Item& item) {
    if (thread() == 0 && R::kFp8) {
      k_scale_ = op_.cache.k_scale[item.kv_head];
      v_scale_ = op_.cache.v_scale[item.kv_head];
      if (kCodes) q_scale_ = op_.q_scale[item.kv_head];
    }
    if (!has_queries()) return;
    turn_.load(op_.raw, item.row, true, lane());
#pragma unroll
    for (int i = 0; i < kRounds; ++i)  // all lanes take part in shuffles: those beyond the group have the last one
      rows_[i].load(op_.raw, item.row, item.kv_head * group_ + min(query(i), group_ - 1), lane());
  }
  /// Nobody reads the inputs of the item before any more.
  __device__ void store() {
    if (!has_queries() && thread() >= 32) return;
    if (has_queries()) {
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        if (op_.raw_is_announced) rows_[i].wait();
        const Vector8 turned = rows_[i].turned(turn_);
        if (query(i) < group_) store8(inputs_.queries + query(i) * kHeadDim, lane(), turned);
      }
    }
    if (thread() == 0) {
      inputs_.k_scale = R::kFp8 ? k_scale_ : 1.0f;
      inputs_.v_scale = (R::kFp8 ? v_scale_ : 1.0f) * (kCodes ? op_.prob_scale : 1.0f);
      inputs_.q_scale = kCodes ? q_scale_ : 1.0f;
    }
    arrive(shared_address(&inputs_.barrier));
  }
  /// For what store() was called for the index-th time.
  __device__ void wait(int index) const { wait_parity(shared_address(&inputs_.barrier), index % 2); }

 private:
  static constexpr int kAtOnce = R::kThreads / kLanesPerHead, kRounds = (8 * kColumns + kAtOnce - 1) / kAtOnce;
  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int lane() { return thread() % kLanesPerHead; }
  __device__ static int query(int round) { return round * kAtOnce + thread() / kLanesPerHead; }
  __device__ bool has_queries() const { return thread() / 32 * 2 < group_; }

  const DecodeAttention& op_;
  const int group_;  // 0: the queries are ready
  Inputs& inputs_;
  float k_scale_, v_scale_, q_scale_;
  HeadTurn turn_;
  HeadRow rows_[kRounds];
};

}  // namespace qwenbench::kernels::decode
