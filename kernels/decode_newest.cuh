// The newest tokens of the sequences: on their way from the QKV projection to the cache, and to the tiles that were
// copied before they were there.
#pragma once

#include "kernels/decode_plan.cuh"
#include "kernels/qk_norm_rope.cuh"

namespace qwenbench::kernels::decode {

/// The items whose newest token lies in a tile of this warp, one after another.
template <class R>
struct NewestTokens {
  const DecodeAttention& op;
  const BlockSlice& slice;
  int next_item = 0;
  const Item* item = nullptr;

  __device__ NewestTokens(const DecodeAttention& of_op, const BlockSlice& of_slice) : op(of_op), slice(of_slice) {}
  __device__ bool next() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    for (int end = item ? item->end : slice.begin(); end < slice.end(); end = item->end) {
      item = &slice.item(next_item++);
      if (item->end <= slice.end() && (item->end - 1 - slice.begin()) % R::kWarps == warp) return true;
    }
    return false;
  }
  __device__ int token() const { return item->row; }
  __device__ int tile() const { return (item->end - 1 - slice.begin()) / R::kWarps; }  // which of the warp's
  __device__ int row() const { return (item->length - 1) % kTileTokens; }
};

/// A row of K (lanes 0 to 15) and V of a newest token, as the cache stores it. All that is read is asked for at once.
template <class R>
class NewestRow {
 public:
  __device__ static bool is_value() { return threadIdx.x % 32 >= kLanesPerHead; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kLanesPerHead; }

  /// Asks for the row, and for what finish() and append() need.
  __device__ void load(const NewestTokens<R>& newest) {
    const KvLayer& cache = newest.op.raw.cache;
    turn_.load(newest.op.raw, newest.token(), false, lane());
    slot_ = newest.op.raw.slot[newest.token()];
    scale_ = R::kFp8 ? (is_value() ? cache.v_scale : cache.k_scale)[newest.item->kv_head] : 1.0f;
    projected_.load(newest.op.raw, newest.token(), head(newest), lane());
  }
  __device__ void finish(const NewestTokens<R>& newest) {
    if (newest.op.raw_is_announced) projected_.wait();
    constexpr KvDtype kDtype = R::kFp8 ? KvDtype::kFp8E4M3 : KvDtype::kBFloat16;
    stored_ = {kDtype, projected_.kept(newest.op.raw, turn_, head(newest)), scale_};
  }
  __device__ void append(const NewestTokens<R>& newest) const {
    const KvLayer& cache = newest.op.raw.cache;
    device::append(cache, is_value() ? cache.v : cache.k, newest.item->kv_head, slot_, stored_, lane());
  }
  /// place(b): where byte b of the row lies.
  template <class Place>
  __device__ void store(const Place& place) const {
    stored_.store(lane(), place);
  }

 private:
  __device__ static int head(const NewestTokens<R>& newest) {
    return newest.op.heads + newest.item->kv_head + (is_value() ? newest.op.cache.kv_heads : 0);
  }

  HeadTurn turn_;
  HeadRow projected_;
  StoredRow stored_;
  std::int64_t slot_;
  float scale_;
};

}  // namespace qwenbench::kernels::decode
