// How 4-bit weights lie in memory, and how they become MMA operands.
//
// codes: blocks of 64 rows x 128 columns (4 KiB), ordered by w4_block; in a block four steps of 32 columns; in a step
// two 16-byte chunks a lane. Chunk c holds row tiles 2c and 2c+1 (16 rows each), for each of them one word per MMA j =
// 0, 1. Lane (g, t) has rows g and g+8, columns 8t + 4j + 0..3. Nibbles of a word, from the lowest, the pairs' upper
// halves 16 bits higher: (row g, columns 0, 1), (g+8; 0, 1), (g; 2, 3), (g+8; 2, 3). groups: one block of 160 bytes per
// 64 rows and 32 columns (group_size < 128) or 128 columns: for each g the eight scales (row tile, g or g+8), then for
// each g four bytes of zero points (a row tile each, g+8 in the upper half).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/l2_policy.cuh"
#include "kernels/linear_ptx.cuh"

namespace qwenbench::kernels {

constexpr int kW4RowBlock = 64;
constexpr int kW4Unit = 128;
constexpr int kW4UnitCodes = kW4RowBlock * kW4Unit / 2;
constexpr int kW4GroupBytes = 160;

/// Where block (row_block of 64 rows, unit of 128 columns) lies: four row blocks (or what is left of them) side by side
/// for each unit, so that a tile of 256 rows is one run of memory.
__host__ __device__ inline std::size_t w4_block(int row_blocks, int units, int row_block, int unit) {
  const int first = row_block / 4 * 4, beside = row_blocks - first < 4 ? row_blocks - first : 4;
  return static_cast<std::size_t>(first) * units + static_cast<std::size_t>(unit) * beside + (row_block - first);
}

/// Where row `row` of n lies among the rows in memory (W4Weights::paired), and back.
__host__ __device__ constexpr int w4_packed_row(int row, int n, bool paired) {
  return !paired ? row : (row % (n / 2)) / 16 * 32 + row % 16 + (row < n / 2 ? 0 : 16);
}
__host__ __device__ constexpr int w4_row(int packed, int n, bool paired) {
  return !paired ? packed : packed / 32 * 16 + packed % 16 + (packed % 32 < 16 ? 0 : n / 2);
}

/// A value that the compiler cannot fold: with two constants an unpacking would take two LOP3.
struct W4Constants {
  std::uint32_t pair_128;  // the bf16 pair 128, 128

  __device__ static __forceinline__ W4Constants make() {
    W4Constants c;
    asm volatile("mov.b32 %0, 0x43004300;" : "=r"(c.pair_128));
    return c;
  }
};

/// The eight codes of a word as bf16 values 128 + u, ordered as the A operand.
__device__ __forceinline__ void w4_unpack(std::uint32_t word, const W4Constants& constants, std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t shifted = word >> (4 * i);
    asm("lop3.b32 %0, %1, 0x000F000F, %2, 0xEA;" : "=r"(a[i]) : "r"(shifted), "r"(constants.pair_128));
  }
}

/// The eight codes of a word as tiny bf16 values, ordered as the A operand: below 2^-125 numbers lie 2^-133 apart, so
/// that bits 0 to 3 are u 2^-133 and bits 4 to 7 are 16 u 2^-133 as they stand, without a shift. Rows g have the
/// former, rows g+8 the latter. (Tensor cores take such numbers at full speed and to the last bit.)
__device__ __forceinline__ void w4_unpack_tiny(std::uint32_t word, std::uint32_t (&a)[4]) {
  const std::uint32_t upper = word >> 8;
  a[0] = word & 0x000F000Fu;
  a[1] = word & 0x00F000F0u;
  a[2] = upper & 0x000F000Fu;
  a[3] = upper & 0x00F000F0u;
}
/// What tokens are multiplied by before they meet tiny codes, so that products are no tiny fp32 numbers; and what
/// brings their sums back, of rows g and g+8.
constexpr float kW4TokenFactor = 0x1p64f;
constexpr std::uint32_t kW4TokenFactorPair = 0x5F805F80u;  // of bf16
constexpr float kW4SumFactorLow = 0x1p69f, kW4SumFactorHigh = 0x1p65f;

/// 128 + u -> bf16((u - zero) * scale), with 128 + zero and the scale of rows g and g+8 in both halves.
__device__ __forceinline__ void w4_scale(std::uint32_t (&a)[4], const std::uint32_t (&zero)[2],
                                         const std::uint32_t (&scale)[2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    a[i] = bf16x2_bits(__hmul2(__hsub2(bits_bf16x2(a[i]), bits_bf16x2(zero[i % 2])), bits_bf16x2(scale[i % 2])));
}

/// Scales and zero points of one lane's eight rows.
struct W4Groups {
  uint4 scales;
  std::uint32_t zeros;

  __device__ __forceinline__ void load(const unsigned char* block, int g) {
    scales = *reinterpret_cast<const uint4*>(block + g * 16);
    zeros = *reinterpret_cast<const std::uint32_t*>(block + 128 + g * 4);
  }
  __device__ __forceinline__ std::uint32_t pair(int rt) const {
    return rt == 0 ? scales.x : rt == 1 ? scales.y : rt == 2 ? scales.z : scales.w;
  }
  /// As bf16 pairs for w4_scale.
  __device__ __forceinline__ void broadcast(int rt, std::uint32_t (&zero)[2], std::uint32_t (&scale)[2]) const {
    scale[0] = __byte_perm(pair(rt), 0, 0x1010), scale[1] = __byte_perm(pair(rt), 0, 0x3232);
    const std::uint32_t z = __byte_perm(zeros, 0, rt * 0x1111);
    zero[0] = (z & 0x000F000Fu) | 0x43004300u;
    zero[1] = ((z >> 4) & 0x000F000Fu) | 0x43004300u;
  }
  /// As fp32, for sums of tiny codes: the zero point as tiny as they are.
  __device__ __forceinline__ void as_floats(int rt, float (&zero)[2], float (&scale)[2]) const {
    scale[0] = __uint_as_float(pair(rt) << 16), scale[1] = __uint_as_float(pair(rt) & 0xFFFF0000u);
    const std::uint32_t z = rt < 2 ? zeros << (16 - 8 * rt) : zeros >> (8 * rt - 16);
    zero[0] = __uint_as_float(z & 0x000F0000u), zero[1] = __uint_as_float(z & 0x00F00000u);
  }
  /// -scale zero 2^-13 (of tiny zeros, times 2^120) of rows g and g+8, each as two bf16 values whose sum it is.
  __device__ __forceinline__ void scaled_zeros(int rt, std::uint32_t (&rows)[2]) const {
    const std::uint32_t tiny = __byte_perm(zeros, 0, rt * 0x0101 | 0x4040) & 0x00F0000Fu;
    const __nv_bfloat162 zero = __hmul2(bits_bf16x2(tiny), bits_bf16x2(0xFB80FB80u));  // -2^120
    const __nv_bfloat162 high = __hmul2(zero, bits_bf16x2(pair(rt)));
    const __nv_bfloat162 low = __hfma2(zero, bits_bf16x2(pair(rt)), __hneg2(high));
    rows[0] = __byte_perm(bf16x2_bits(high), bf16x2_bits(low), 0x5410);
    rows[1] = __byte_perm(bf16x2_bits(high), bf16x2_bits(low), 0x7632);
  }
};

__device__ __forceinline__ std::uint32_t w4_word(const uint4 (&chunks)[2], int rt, int j) {
  const uint4& c = chunks[rt / 2];
  return rt % 2 == 0 ? (j == 0 ? c.x : c.y) : (j == 0 ? c.z : c.w);
}

}  // namespace qwenbench::kernels
