// The inner part of attention over many query rows: a thread block holds 128 rows and passes 64 keys at a time through
// shared memory; each of its four warps owns 32 rows.
#pragma once

#include "kernels/attention_device.cuh"

namespace qwenbench::kernels::device {

constexpr int kFlashRows = 128, kFlashKeys = 64, kFlashThreads = 128;

/// kOctets: head_dim / 8. Rows in shared memory are padded with zeros to a multiple of 16 elements and lie an odd
/// number of 16-byte chunks apart, so that eight rows never meet in a bank.
template <int kOctets>
struct FlashTile {
  static constexpr int kSteps = (kOctets + 1) / 2;      // products of 16 head dims
  static constexpr int kStride = (2 * kSteps + 1) * 8;  // elements from row to row
  static constexpr int kRowBytes = kStride * 2;
  static constexpr int kQueryBytes = kFlashRows * kRowBytes, kKeyBytes = kFlashKeys * kRowBytes;
  static constexpr int kBytes = kQueryBytes + 2 * kKeyBytes;  // queries, keys, values
  static constexpr int kPairs = kFlashKeys / 16;              // products of 16 keys

  float out[2][2 * kSteps][4];    // rows 16i + g, 16i + g + 8; dims 8j + 2t, 8j + 2t + 1
  float score[2][2 * kPairs][4];  // likewise, keys
  float maximum[4], sum[4];       // of rows g, g + 8, g + 16, g + 24; sums over this lane's keys

  __device__ void clear() {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 2 * kSteps; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      maximum[r] = kNoMaximum;
      sum[r] = 0;
    }
  }

  /// score = Q K^T. queries: of this warp's first row.
  __device__ void compute_scores(unsigned queries, unsigned keys) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned q_row = queries + (lane % 16) * kRowBytes + lane / 16 * 16;
    const unsigned k_row = keys + (lane % 8 + lane / 16 * 8) * kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) score[m][n][i] = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      unsigned a[2][4];
      load_matrices(a[0], q_row + s * 32);
      load_matrices(a[1], q_row + 16 * kRowBytes + s * 32);
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        unsigned b[4];
        load_matrices(b, k_row + n * 16 * kRowBytes + s * 32);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply<false>(score[m][2 * n], a[m], b[0], b[1]);
          multiply<false>(score[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  /// Leaves out the keys after last_key(row) of each of this lane's rows.
  template <class LastKey>
  __device__ void mask(int first_key, const LastKey& last_key) {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int last = last_key(thread / 32 * 32 + thread % 32 / 4 + 8 * r) - (first_key + thread % 4 * 2);
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (8 * n + i > last) score[r / 2][n][r % 2 * 2 + i] = -INFINITY;
    }
  }

  /// score becomes exp(score * factor - reference), factor including log2 e; the sums follow.
  template <bool kCodes>
  __device__ void exponentiate(float factor) {
    float top[4];
    bool far = false;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      top[r] = score[r / 2][0][r % 2 * 2];
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
        top[r] = fmaxf(top[r], fmaxf(score[r / 2][n][r % 2 * 2], score[r / 2][n][r % 2 * 2 + 1]));
      top[r] *= factor;
      far |= top[r] > maximum[r] + (kCodes ? 0.0f : kMaximumSlack);
    }
    if (__any_sync(kAllLanes, far)) raise_maximum(top);
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = score[r / 2][n][r % 2 * 2 + i];
          s = exp2_fast(fmaf(s, factor, -maximum[r]));
          sum[r] += s;
        }
  }

  __device__ void raise_maximum(const float (&lane_top)[4]) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      float top = fmaxf(lane_top[r], __shfl_xor_sync(kAllLanes, lane_top[r], 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      top = fmaxf(top, maximum[r]);
      const float shrink = exp2_fast(maximum[r] - top);
      maximum[r] = top;
      sum[r] *= shrink;
#pragma unroll
      for (int n = 0; n < 2 * kSteps; ++n) {
        out[r / 2][n][r % 2 * 2] *= shrink;
        out[r / 2][n][r % 2 * 2 + 1] *= shrink;
      }
    }
  }

  /// out += exponentials * V; kCodes: e4m3(exponentials * per_code) * V
  template <bool kCodes>
  __device__ void add_values(unsigned values, float per_code) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned v_row = values + (lane % 16) * kRowBytes + lane / 16 * 16;
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      unsigned a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &score[m][2 * k + i / 2][i % 2 * 2];
          a[m][i] =
              kCodes ? bf16_of_e4m3(e4m3_of(pair[0] * per_code, pair[1] * per_code)) : pack<false>(pair[0], pair[1]);
        }
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        unsigned b[4];
        load_matrices_transposed(b, v_row + k * 16 * kRowBytes + s * 32);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply<false>(out[m][2 * s], a[m], b[0], b[1]);
          if (2 * s + 1 < kOctets) multiply<false>(out[m][2 * s + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  /// Writes out / sum * scale as bf16 over this warp's query rows in shared memory, for coalesced stores.
  __device__ void finish(__nv_bfloat16* queries, float scale) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      float total = sum[r] + __shfl_xor_sync(kAllLanes, sum[r], 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const float factor = scale / total;
      __nv_bfloat16* row = queries + (g + 8 * r) * kStride + 2 * t;
#pragma unroll
      for (int n = 0; n < kOctets; ++n)
        *reinterpret_cast<unsigned*>(row + 8 * n) =
            pack<false>(out[r / 2][n][r % 2 * 2] * factor, out[r / 2][n][r % 2 * 2 + 1] * factor);
    }
    __syncwarp();
  }
};

/// One pass over the keys: copies of the next keys and values run behind the products. copy_keys(tile) and
/// copy_values(tile) start the copies of 64 rows; all rows attend to the first unmasked_keys keys, and row r to those
/// up to last_key(r). The queries are being copied when this is called, uncommitted. kCodes:
/// exponentials are rounded to E4M3 codes, per_code to one.
template <bool kCodes = false, int kOctets, class CopyKeys, class CopyValues, class LastKey>
__device__ inline void pass_over_keys(FlashTile<kOctets>& tile, unsigned shared, int tiles, float factor,
                                      int unmasked_keys, const LastKey& last_key, const CopyKeys& copy_keys,
                                      const CopyValues& copy_values, float per_code = 1.0f) {
  using Tile = FlashTile<kOctets>;
  const unsigned queries = shared + static_cast<unsigned>(threadIdx.x) / 32 * 32 * Tile::kRowBytes;
  const unsigned keys = shared + Tile::kQueryBytes, values = keys + Tile::kKeyBytes;
  tile.clear();
  copy_keys(0);
  commit_copies();
  for (int j = 0; j < tiles; ++j) {
    wait_copies<0>();
    __syncthreads();  // keys of j are here, and nobody reads the values of j - 1 any more
    copy_values(j);
    commit_copies();
    tile.compute_scores(queries, keys);
    wait_copies<0>();
    __syncthreads();  // values of j are here, and nobody reads the keys of j any more
    if (j + 1 < tiles) copy_keys(j + 1);
    commit_copies();
    if ((j + 1) * kFlashKeys > unmasked_keys) tile.mask(j * kFlashKeys, last_key);
    tile.template exponentiate<kCodes>(factor);
    tile.template add_values<kCodes>(values, per_code);
  }
}

}  // namespace qwenbench::kernels::device
