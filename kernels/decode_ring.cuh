// Each warp's ring of tiles in shared memory, filled by asynchronous copies. The main loop of a warp needs no barrier.
// A copy instruction of a warp takes 512 bytes that lie one after another, in whole lines; in shared memory the 16-byte
// pieces of a row are exchanged (piece ^ row % 8), so that neither copies nor loads of fragments meet in a bank.
#pragma once

#include "kernels/decode_newest.cuh"
#include "kernels/l2_policy.cuh"

namespace qwenbench::kernels::decode {

enum class RingSize {
  kLarge,  // 192 KB, of the 227 KB that a block of sm_90 may take: what its memory needs in flight
  kSmall,  // at most 80 KB, of 99 KB (sm_86, sm_89, sm_120), whose memory needs less in flight for each multiprocessor
};

template <KvDtype kDtype, RingSize kSize>
struct Ring {
  static constexpr bool kFp8 = kDtype == KvDtype::kFp8E4M3, kLarge = kSize == RingSize::kLarge;
  static constexpr int kRowBytes = kFp8 ? kHeadDim : 2 * kHeadDim;
  static constexpr int kTileBytes = kTileTokens * kRowBytes;
  static constexpr int kPieces = kTileBytes / 512;  // of 16 bytes a lane, of K and of V each
  static constexpr int kRowPieces = kRowBytes / 16, kRowsAtOnce = 32 / kRowPieces;
  static constexpr int kWarps = kLarge ? (kFp8 ? 16 : 12) : (kFp8 ? 8 : 5), kThreads = 32 * kWarps;
  static constexpr int kStages = kLarge && kFp8 ? 3 : 2;
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kBytes = kWarps * kStages * kStageBytes;
};

/// Copies a tile into a stage of the ring.
template <class R>
__device__ inline void copy_tile(const KvLayer& cache, std::int64_t place, int valid, unsigned stage,
                                 std::uint64_t policy) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / R::kRowPieces, piece = lane % R::kRowPieces;
  const auto* k = static_cast<const char*>(cache.k) + place * R::kTileBytes + lane * 16;
  const auto* v = static_cast<const char*>(cache.v) + place * R::kTileBytes + lane * 16;
  const unsigned to = stage + row * R::kRowBytes + (piece ^ row) * 16;
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p)
    copy16_by((to ^ (p * R::kRowsAtOnce % 8 * 16)) + p * 512, k + p * 512, p * R::kRowsAtOnce + row < valid, policy);
#pragma unroll
  for (int p = 0; p < R::kPieces; ++p)
    copy16_by((to ^ (p * R::kRowsAtOnce % 8 * 16)) + p * 512 + R::kTileBytes, v + p * 512,
              p * R::kRowsAtOnce + row < valid, policy);
}

/// A warp's tiles in their order.
template <class R>
class TileRing {
 public:
  /// own: the warp's kStages stages. Its tiles are first, first + kWarps, ... of the slice.
  /// A context that L2 may still hold when the next token is decoded stays there: `is_long` tells of another.
  __device__ TileRing(const DecodeAttention& op, const BlockSlice& slice, int log2_tiles, int first, bool is_long,
                      char* own)
      : cache_(op.cache),
        finder_(op, slice, log2_tiles, first),
        ring_(shared_address(own)),
        policy_(is_long ? evict_first_policy() : evict_normal_policy()) {}

  /// Copies the first tile, but not the newest token of a sequence: it may not be there yet.
  __device__ void begin() { copy_first(0, kBegun, 1); }
  /// And those that fit beside it, now that newest tokens are in the cache.
  __device__ void go_on() {
    __syncwarp();
    copy_first(kBegun, R::kStages - 1, 0);
  }

  /// Whether begin() has copied the warp's i-th tile.
  __device__ static bool begins_with(int i) { return i < kBegun; }

  /// Puts the newest token of such a tile there: row `at` of K and V.
  __device__ void put(int i, int at, const NewestRow<R>& row) {
    wait_copies<0>();
    __syncwarp();
    char* to = pointer(stage(i)) + (row.is_value() ? R::kTileBytes : 0) + at * R::kRowBytes;
    row.store([&](int byte) { return to + (byte / 16 ^ at % 8) * 16 + byte % 16; });
    __syncwarp();
  }

  /// Such a tile once more, now that its newest token is in the cache.
  __device__ void copy_again(int i) {
    wait_copies<0>();
    __syncwarp();
    copy_tile<R>(cache_, __shfl_sync(kAllLanes, finder_.place, i), __shfl_sync(kAllLanes, finder_.valid, i) & ~kNewest,
                 stage(i), policy_);
    commit_copies();
    wait_copies<0>();
  }

  /// The address of the next tile, which has come. A further one is on its way to the stage of the one before.
  __device__ unsigned advance() {
    std::int64_t place;
    int valid;
    finder_.find(next_, place, valid);
    __syncwarp();  // all lanes have read what was in the stage
    if (valid > 0) copy_tile<R>(cache_, place, valid & ~kNewest, stage(next_stage_), policy_);
    commit_copies();
    ++next_;
    next_stage_ = following(next_stage_);
    wait_copies<R::kStages - 1>();
    __syncwarp();
    const unsigned current = stage(stage_);
    stage_ = following(stage_);
    return current;
  }

  /// A stage that is neither read nor copied to until advance() is called.
  __device__ char* spare() const { return pointer(stage(next_stage_)); }

 private:
  static constexpr int kBegun = 1;

  /// Tiles from ... to - 1, each without so many of its newest tokens.
  __device__ __forceinline__ void copy_first(int from, int to, int newest) {
#pragma unroll 1
    for (int i = from; i < to; ++i) {
      std::int64_t place;
      int valid;
      finder_.find(i, place, valid);
      if (valid > 0)
        copy_tile<R>(cache_, place, (valid & ~kNewest) - (valid & kNewest ? newest : 0), stage(i), policy_);
      commit_copies();
    }
  }
  __device__ unsigned stage(int i) const { return ring_ + i * R::kStageBytes; }
  __device__ static char* pointer(unsigned address) { return static_cast<char*>(__cvta_shared_to_generic(address)); }
  __device__ static int following(int stage) { return stage + 1 == R::kStages ? 0 : stage + 1; }

  const KvLayer& cache_;
  TileFinder<R::kWarps> finder_;
  unsigned ring_;
  std::uint64_t policy_;
  int next_ = R::kStages - 1, next_stage_ = R::kStages - 1;  // the tile to copy, and where to
  int stage_ = 0;                                            // of the tile to be read next
};

}  // namespace qwenbench::kernels::decode
