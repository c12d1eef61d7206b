// A warp's sums over 16 tokens at a time. K is the 16-row operand of S^T = K Q^T and V^T that of O^T = V^T P^T; the
// query heads of a KV head are the 8 columns.
#pragma once

#include "kernels/decode_ring.cuh"

namespace qwenbench::kernels::decode {

/// Running softmax of 8 * kColumns queries over the tokens that a warp has met.
/// kCodes: queries and exponentials are rounded to E4M3.
template <class R, int kColumns, bool kCodes>
struct Accumulator {
  static constexpr bool kHalf = R::kFp8;  // E4M3 is exact in fp16, whose products are finer than those of bf16
  unsigned q[kColumns][8][2];             // Q^T fragments
  static constexpr float kSlack = kCodes ? 0 : kMaximumSlack;
  float per_code;              // of exponentials, kCodes: 1 / prob_scale
  float factor;                // of the raw scores, log2 e included
  float out[kColumns][8][4];   // O^T fragments
  float maximum[kColumns][2];  // of queries 2t, 2t + 1: reference of the exponents
  float sum[kColumns][2];      // over this lane's tokens g, g + 8

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int m = 0; m < 8; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[c][m][i] = 0;
      maximum[c][0] = maximum[c][1] = kNoMaximum;
      sum[c][0] = sum[c][1] = 0;
    }
  }

  /// The p-th piece of a row of K that lane t of its token multiplies; the order of dims within a product is free.
  __device__ static int piece_of(int t, int p) { return 2 * t + p % 2 + p / 2 * 8; }

  /// rows: the group's first query head. FP8: Q becomes fp16, times a power of two that keeps it in range.
  __device__ void load_queries(const __nv_bfloat16* rows, int group, float k_scale, float q_scale) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int s = 0; s < 8; ++s) {
        const int dim = R::kFp8 ? piece_of(t, s / 4) * 16 + 4 * (s % 4) : piece_of(t, s / 2) * 8 + 4 * (s % 2);
        const int query = 8 * c + g;
        uint2 v = make_uint2(0, 0);
        if (query < group) v = *reinterpret_cast<const uint2*>(rows + query * kHeadDim + dim);
        q[c][s][0] = v.x;
        q[c][s][1] = v.y;
      }
    factor = kLog2E * 0.08838834764831845f;  // 1 / sqrt(128)
    if constexpr (kCodes) {
      factor *= k_scale * q_scale;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            q[c][s][i] = halves_of_e4m3(
                e4m3_of(__fdiv_rn(bf16_low(q[c][s][i]), q_scale), __fdiv_rn(bf16_high(q[c][s][i]), q_scale)));
    } else if constexpr (R::kFp8) {
      float largest = 0;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            largest = fmaxf(largest, fmaxf(fabsf(bf16_low(q[c][s][i])), fabsf(bf16_high(q[c][s][i]))));
#pragma unroll
      for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
      const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
      const int shift = exponent == 128 ? 0 : min(14 - exponent, 126);
      const float up = __uint_as_float(static_cast<unsigned>(127 + shift) << 23);
      factor *= k_scale * __uint_as_float(static_cast<unsigned>(127 - shift) << 23);
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int s = 0; s < 8; ++s)
#pragma unroll
          for (int i = 0; i < 2; ++i) q[c][s][i] = pack<true>(bf16_low(q[c][s][i]) * up, bf16_high(q[c][s][i]) * up);
    }
  }

  __device__ static unsigned word(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

  __device__ void add_scores(unsigned stage, float (&score)[kColumns][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    const unsigned row = stage + g * R::kRowBytes + (piece_of(t, 0) ^ g) * 16;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) score[c][i] = 0;
#pragma unroll
    for (int p = 0; p < R::kPieces / 2; ++p) {
      const unsigned at = (row ^ (p % 2 * 16)) + p / 2 * 128;
      const uint4 low = load_shared16(at), high = load_shared16(at + 8 * R::kRowBytes);
      if constexpr (R::kFp8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const unsigned a[4] = {halves_of_e4m3(word(low, i)), halves_of_e4m3(word(high, i)),
                                 halves_of_e4m3(word(low, i) >> 16), halves_of_e4m3(word(high, i) >> 16)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(score[c], a, q[c][4 * p + i][0], q[c][4 * p + i][1]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const unsigned a[4] = {word(low, 2 * i), word(high, 2 * i), word(low, 2 * i + 1), word(high, 2 * i + 1)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(score[c], a, q[c][2 * p + i][0], q[c][2 * p + i][1]);
        }
      }
    }
  }

  /// Raises the references where a score exceeds them by far, and rescales what was summed.
  __device__ void raise_maximum(const float (&score)[kColumns][4]) {
    bool far = false;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j) far |= fmaxf(score[c][j], score[c][j + 2]) * factor > maximum[c][j] + kSlack;
    if (!__any_sync(kAllLanes, far)) return;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float top = fmaxf(score[c][j], score[c][j + 2]) * factor;
#pragma unroll
        for (int step = 4; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
        top = fmaxf(top, maximum[c][j]);
        const float shrink = exp2_fast(maximum[c][j] - top);
        maximum[c][j] = top;
        sum[c][j] *= shrink;
#pragma unroll
        for (int m = 0; m < 8; ++m) {
          out[c][m][j] *= shrink;
          out[c][m][j + 2] *= shrink;
        }
      }
  }

  /// valid: tokens of the tile that exist; the others are zero in the stage.
  __device__ void add_tile(unsigned stage, int valid) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    float score[kColumns][4];
    add_scores(stage, score);
    if (valid < kTileTokens) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (g + 8 * (i / 2) >= valid) score[c][i] = -INFINITY;
    }
    raise_maximum(score);
    unsigned p[kColumns][2];  // P^T fragments
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[c][i] = exp2_fast(fmaf(score[c][i], factor, -maximum[c][i % 2]));
        sum[c][i % 2] += score[c][i];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
        p[c][i] = transpose(kCodes ? halves_of_e4m3(e4m3_of(score[c][2 * i] * per_code, score[c][2 * i + 1] * per_code))
                                   : pack<kHalf>(score[c][2 * i], score[c][2 * i + 1]));
    }
    add_values(stage + R::kTileBytes, p);
  }

  __device__ void add_values(unsigned stage, const unsigned (&p)[kColumns][2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane % 8, matrix = lane / 8;
    if constexpr (R::kFp8) {  // an element of a matrix is two codes, of dims 2g and 2g + 1: rows g and g + 8 of a
                              // product
      const unsigned base = stage + (matrix % 2 * 8 + row) * R::kRowBytes + (matrix / 2 ^ row) * 16;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        unsigned v[4];
        load_matrices_transposed(v, base ^ (j * 32));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const unsigned x = __byte_perm(v[2 * h], 0, 0x3120), y = __byte_perm(v[2 * h + 1], 0, 0x3120);
          const unsigned a[4] = {halves_of_e4m3(x), halves_of_e4m3(x >> 16), halves_of_e4m3(y),
                                 halves_of_e4m3(y >> 16)};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][2 * j + h], a, p[c][0], p[c][1]);
        }
      }
    } else {
      const unsigned base = stage + (matrix / 2 * 8 + row) * R::kRowBytes + (matrix % 2 ^ row) * 16;
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        unsigned a[4];
        load_matrices_transposed(a, base ^ (m * 32));
#pragma unroll
        for (int c = 0; c < kColumns; ++c) multiply<kHalf>(out[c][m], a, p[c][0], p[c][1]);
      }
    }
  }

  __device__ void sum_over_lanes() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum[c][j] += __shfl_xor_sync(kAllLanes, sum[c][j], step);
  }

  /// Writes outputs of a column of queries as pairs of dims (see Pair): [m][j][lane].
  __device__ void save(float2* pairs, int c) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int m = 0; m < 8; ++m)
#pragma unroll
      for (int j = 0; j < 2; ++j) pairs[(2 * m + j) * 32 + lane] = make_float2(out[c][m][j], out[c][m][j + 2]);
  }
};

}  // namespace qwenbench::kernels::decode
