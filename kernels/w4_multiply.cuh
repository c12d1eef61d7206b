// 64 rows of 4-bit weights times a few tokens, both in shared memory: what a warp does with a stage of a ring.
#pragma once

#include <cstdint>

#include "kernels/w4_format.cuh"

namespace qwenbench::kernels {

/// Tokens whose totals a stage has room for.
constexpr int kTotalsTokens = 16;

/// Sums of a stage's tokens over the columns of each group: the warp that multiplies computes them on its way. Where
/// codes are tiny (w4_unpack_tiny) it multiplies the tokens by their factor too.
struct OwnTotals {
  static constexpr bool kGiven = false;
  static constexpr int kColumns = 2;
};
/// Another warp has: they are in shared memory when `barrier` is through. Tokens come with their factor. kOneToken:
/// there is one alone, and sums of others are not brought to the end.
///
/// One group: fp32 [kTotalsTokens]. Four: [kTotalsTokens][4 groups] pairs of words, each word a bf16 value twice; the
/// total is 2^120 times the sum of the two.
template <bool kOneToken>
struct GivenTotals {
  static constexpr bool kGiven = true;
  static constexpr int kColumns = kOneToken ? 1 : 2;  // of the two that a lane has
  std::uint32_t barrier, parity;
  const float* totals;
  bool seen;  // that the barrier is through

  /// Of this lane's columns, as sums have them.
  template <int kTokenTiles>
  __device__ __forceinline__ void load(float (&sum_x)[kTokenTiles][4]) const {
    if (!seen) wait_parity(barrier, parity);
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt) {
      const float2 v = *reinterpret_cast<const float2*>(totals + tt * 8 + 2 * t);
      sum_x[tt][0] = v.x, sum_x[tt][1] = v.y;
    }
  }
  /// As the B operand: of this lane's token, and the group that lane % 4 tells.
  template <int kTokenTiles>
  __device__ __forceinline__ void load_pairs(uint2 (&b)[kTokenTiles]) const {
    if (!seen) wait_parity(barrier, parity);
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt) b[tt] = reinterpret_cast<const uint2*>(totals)[tt * 32 + threadIdx.x % 32];
  }
};

/// What W4Format::multiply() calls where nothing is to be done on its way.
struct Nothing {
  __device__ void operator()() const {}
};

/// kGroups: scales per row and unit of 128 columns, 1 or 4. kScaleSums: scale the fp32 sums instead of the weights.
template <int kGroups, bool kScaleSums>
struct W4Format {
  struct Weights {
    const unsigned char* codes;
    const unsigned char* groups;
    int row_blocks;
  };
  static constexpr int kBlockBytes = kW4UnitCodes + kGroups * kW4GroupBytes;
  static constexpr int kTotalsFloats = kGroups == 1 ? kTotalsTokens : kTotalsTokens * kGroups * 2;  // see GivenTotals
  /// What multiply()'s sums of rows g (half 0) and g+8 still lack.
  __host__ __device__ static constexpr float sum_factor(int half) {
    return !kScaleSums ? 1.0f : half == 0 ? kW4SumFactorLow : kW4SumFactorHigh;
  }

  __device__ static __forceinline__ W4Constants constants() { return W4Constants::make(); }
  __device__ static __forceinline__ int row_blocks(const Weights& w) { return w.row_blocks; }

  /// `blocks` row blocks from `row_block` on of one unit: all codes, then (behind `stride` blocks) all groups.
  __device__ static __forceinline__ void copy(const Weights& w, int units, int row_block, int blocks, int stride,
                                              int unit, std::uint32_t to, std::uint32_t barrier) {
    const std::uint64_t policy = evict_first_policy();
#pragma unroll 1
    for (int i = 0; i < blocks; i += 4) {
      const std::size_t from = w4_block(w.row_blocks, units, row_block + i, unit);
      const int count = min(4, blocks - i);
      copy_bulk(to + i * kW4UnitCodes, w.codes + from * kW4UnitCodes, count * kW4UnitCodes, barrier,
                static_cast<int>(threadIdx.x % 32), 32, policy);
      copy_bulk(to + stride * kW4UnitCodes + i * (kGroups * kW4GroupBytes), w.groups + from * (kGroups * kW4GroupBytes),
                count * (kGroups * kW4GroupBytes), barrier, static_cast<int>(threadIdx.x % 32), 32, policy);
    }
  }

  template <int kTokenTiles, bool kMakeLarge>
  struct Tokens {
    std::uint32_t b[kTokenTiles][4];
    __device__ __forceinline__ void load(const unsigned char* stage, const int (&offset)[kTokenTiles], int step) {
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) {
        const uint4 v = *reinterpret_cast<const uint4*>(stage + offset[tt] + step * 64);
        b[tt][0] = v.x, b[tt][1] = v.y, b[tt][2] = v.z, b[tt][3] = v.w;
        if constexpr (kMakeLarge) {
#pragma unroll
          for (std::uint32_t& pair : b[tt])
            pair = bf16x2_bits(__hmul2(bits_bf16x2(pair), bits_bf16x2(kW4TokenFactorPair)));
        }
      }
    }
  };

  /// acc += rows of the stage's row block `row_warp`, in four tiles of 16, times its tokens. `meanwhile` is called when
  /// the last products are under way.
  template <int kTokenTiles, int kRowWarps, class Totals = OwnTotals, class Meanwhile = Nothing>
  __device__ static __forceinline__ void multiply(const unsigned char* stage, int row_warp, int lane,
                                                  const int (&token_offset)[kTokenTiles], const W4Constants& constants,
                                                  float (&acc)[4][kTokenTiles][4], const Totals& totals = {},
                                                  Meanwhile meanwhile = {}) {
    const unsigned char* codes = stage + row_warp * kW4UnitCodes + lane * 16;
    const unsigned char* groups = stage + kRowWarps * kW4UnitCodes + row_warp * (kGroups * kW4GroupBytes);
    W4Groups group;
    if (kGroups == 1) group.load(groups, lane / 4);
    if constexpr (kScaleSums && kGroups == 1) {
      multiply_unit<kTokenTiles>(stage, codes, token_offset, group, acc, totals, meanwhile);
    } else {
      Tokens<kTokenTiles, kScaleSums && !Totals::kGiven> tokens;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint4 chunks[2];
#pragma unroll
        for (int c = 0; c < 2; ++c) chunks[c] = *reinterpret_cast<const uint4*>(codes + step * 1024 + c * 512);
        if (kGroups == 4) group.load(groups + step * kW4GroupBytes, lane / 4);
        tokens.load(stage, token_offset, step);
        if constexpr (kScaleSums) {
          float sum_x[kTokenTiles][4] = {};
          if constexpr (!Totals::kGiven) add_ones(tokens.b, sum_x);
#pragma unroll
          for (int rt = 0; rt < 4; ++rt) {
            float sum[kTokenTiles][4] = {};
            add(w4_word(chunks, rt, 0), w4_word(chunks, rt, 1), tokens.b, sum);
            scale<Totals::kColumns, !Totals::kGiven>(group, rt, sum, sum_x, acc[rt]);
          }
        } else {
          scale_weights<kTokenTiles>(group, chunks, tokens.b, constants, acc);
        }
      }
      if constexpr (kScaleSums && Totals::kGiven) {
        meanwhile();
        group.load(groups + lane % 4 * kW4GroupBytes, lane / 4);
        uint2 pairs[kTokenTiles];
        totals.load_pairs(pairs);
        subtract_zeros(group, pairs, acc);
      }
    }
  }

  /// One scale for the whole unit: it multiplies the sum of 128 columns. All four row tiles at once, with many tokens,
  /// take more registers than reading the tokens twice takes time.
  template <int kTokenTiles, class Totals, class Meanwhile>
  __device__ static __forceinline__ void multiply_unit(const unsigned char* stage, const unsigned char* codes,
                                                       const int (&token_offset)[kTokenTiles], const W4Groups& group,
                                                       float (&acc)[4][kTokenTiles][4], const Totals& totals,
                                                       Meanwhile meanwhile) {
    constexpr int kParts = kTokenTiles == 1 ? 1 : 2, kEach = 4 / kParts;
    Tokens<kTokenTiles, !Totals::kGiven> tokens;
    float sum_x[kTokenTiles][4] = {};
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      float sum[kEach][kTokenTiles][4] = {};
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        tokens.load(stage, token_offset, step);
        if (!Totals::kGiven && part == 0) add_ones(tokens.b, sum_x);
#pragma unroll
        for (int pair = 0; pair < kEach / 2; ++pair) {
          const uint4 words = *reinterpret_cast<const uint4*>(codes + step * 1024 + (part + pair) * 512);
          add(words.x, words.y, tokens.b, sum[2 * pair]);
          add(words.z, words.w, tokens.b, sum[2 * pair + 1]);
        }
      }
      if constexpr (Totals::kGiven)
        if (part == 0) totals.load(sum_x);
      if (part == kParts - 1) meanwhile();
#pragma unroll
      for (int rt = 0; rt < kEach; ++rt)
        scale<Totals::kColumns, true>(group, part * kEach + rt, sum[rt], sum_x, acc[part * kEach + rt]);
    }
  }

  /// totals = the sums of a stage's tokens over each group's columns (see add_ones), as GivenTotals has them.
  template <int kTokenTiles>
  __device__ static __forceinline__ void add_tokens(const unsigned char* stage, const int (&token_offset)[kTokenTiles],
                                                    float* totals, int lane) {
    const int g = lane / 4, t = lane % 4;
    float sum_x[kGroups][kTokenTiles][4] = {};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Tokens<kTokenTiles, false> tokens;
      tokens.load(stage, token_offset, step);
      add_ones(tokens.b, sum_x[step % kGroups]);
    }
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt) {
      if constexpr (kGroups == 1) {
        if (g == 0) *reinterpret_cast<float2*>(totals + tt * 8 + 2 * t) = make_float2(sum_x[0][tt][0], sum_x[0][tt][1]);
      } else {  // all lanes g have the same sums: each takes one of the eight
        float mine = 0;
#pragma unroll
        for (int i = 0; i < 2 * kGroups; ++i)
          if (g == i) mine = sum_x[i / 2][tt][i % 2];
        mine *= kTotalsFactor;
        const __nv_bfloat162 high = __float2bfloat162_rn(mine);
        const __nv_bfloat162 low = __float2bfloat162_rn(mine - __low2float(high));
        reinterpret_cast<uint2*>(totals)[(tt * 8 + 2 * t + g % 2) * kGroups + g / 2] =
            make_uint2(bf16x2_bits(high), bf16x2_bits(low));
      }
    }
  }

  // sum (u - zero) x = sum u x - zero sum x, where a product with ones gives the last sum in the place where the lane
  // needs it: no subtraction per weight.
  template <int kTokenTiles>
  __device__ static __forceinline__ void add_ones(const std::uint32_t (&b)[kTokenTiles][4],
                                                  float (&sum_x)[kTokenTiles][4]) {
    const std::uint32_t ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(sum_x[tt], ones, b[tt][2 * j], b[tt][2 * j + 1]);
  }
  template <int kTokenTiles>
  __device__ static __forceinline__ void add(std::uint32_t word0, std::uint32_t word1,
                                             const std::uint32_t (&b)[kTokenTiles][4], float (&sum)[kTokenTiles][4]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      std::uint32_t a[4];
      const std::uint32_t word = j == 0 ? word0 : word1;
      w4_unpack_tiny(word, a);
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) {
        mma_bf16(sum[tt], a, b[tt][2 * j], b[tt][2 * j + 1]);
      }
    }
  }
  /// acc += scale (sum u x - zero sum x); the second part only where kZeros.
  template <int kColumns, bool kZeros, int kTokenTiles>
  __device__ static __forceinline__ void scale(const W4Groups& group, int rt, const float (&sum)[kTokenTiles][4],
                                               const float (&sum_x)[kTokenTiles][4], float (&acc)[kTokenTiles][4]) {
    float zero[2], scale[2];
    group.as_floats(rt, zero, scale);
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i % 2 >= kColumns) continue;
        const float shifted = kZeros ? fmaf(-zero[i / 2], sum_x[tt][i % 2], sum[tt][i]) : sum[tt][i];
        acc[tt][i] = fmaf(scale[i / 2], shifted, acc[tt][i]);
      }
  }

  // With four groups a unit, one product does all of it: columns 2t and 2t+1 of the A operand are the two halves of
  // -scale zero of group t (a product of 8 by 4 bits is the sum of two bf16 values), times the higher part of the
  // group's total; columns 2t+8 and 2t+9 are the same, times the lower part: 16 bits of the total, and its sign.
  static constexpr float kTotalsFactor = 0x1p-120f;

  /// `group`: of the lane's group t.
  template <int kTokenTiles>
  __device__ static __forceinline__ void subtract_zeros(const W4Groups& group, const uint2 (&pairs)[kTokenTiles],
                                                        float (&acc)[4][kTokenTiles][4]) {
#pragma unroll
    for (int rt = 0; rt < 4; ++rt) {
      std::uint32_t rows[2];
      group.scaled_zeros(rt, rows);
      const std::uint32_t a[4] = {rows[0], rows[1], rows[0], rows[1]};
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(acc[rt][tt], a, pairs[tt].x, pairs[tt].y);
    }
  }

  template <int kTokenTiles>
  __device__ static __forceinline__ void scale_weights(const W4Groups& group, const uint4 (&chunks)[2],
                                                       const std::uint32_t (&b)[kTokenTiles][4],
                                                       const W4Constants& constants, float (&acc)[4][kTokenTiles][4]) {
#pragma unroll
    for (int rt = 0; rt < 4; ++rt) {
      std::uint32_t zero[2], scale[2];
      group.broadcast(rt, zero, scale);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        std::uint32_t a[4];
        w4_unpack(w4_word(chunks, rt, j), constants, a);
        w4_scale(a, zero, scale);
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(acc[rt][tt], a, b[tt][2 * j], b[tt][2 * j + 1]);
      }
    }
  }
};

}  // namespace qwenbench::kernels
