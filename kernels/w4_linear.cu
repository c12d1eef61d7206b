#include "kernels/linear_ring.cuh"
#include "kernels/w4_format.cuh"
#include "kernels/w4_linear.h"

namespace qwenbench::kernels {
namespace {

/// kGroups: scales per row and unit of 128 columns, 1 or 4. kScaleSums: scale the fp32 sums instead of the weights.
template <int kGroups, bool kScaleSums>
struct W4Format {
  struct Weights {
    const unsigned char* codes;
    const unsigned char* groups;
    int row_blocks;
  };
  static constexpr int kBlockBytes = kW4UnitCodes + kGroups * kW4GroupBytes;

  __device__ static __forceinline__ std::uint32_t constants() { return w4_magic(); }
  __device__ static __forceinline__ int row_blocks(const Weights& w) { return w.row_blocks; }

  /// `blocks` row blocks from `row_block` on of one unit: all codes, then (behind `stride` blocks) all groups.
  __device__ static __forceinline__ void copy(const Weights& w, int units, int row_block, int blocks, int stride,
                                              int unit, std::uint32_t to, std::uint32_t barrier) {
#pragma unroll 1
    for (int i = 0; i < blocks; i += 4) {
      const std::size_t from = w4_block(w.row_blocks, units, row_block + i, unit);
      const int count = min(4, blocks - i);
      copy_bulk(to + i * kW4UnitCodes, w.codes + from * kW4UnitCodes, count * kW4UnitCodes, barrier,
                static_cast<int>(threadIdx.x % 32), 32);
      copy_bulk(to + stride * kW4UnitCodes + i * (kGroups * kW4GroupBytes), w.groups + from * (kGroups * kW4GroupBytes),
                count * (kGroups * kW4GroupBytes), barrier, static_cast<int>(threadIdx.x % 32), 32);
    }
  }

  template <int kTokenTiles>
  struct Tokens {
    std::uint32_t b[kTokenTiles][4];
    __device__ __forceinline__ void load(const unsigned char* stage, const int (&offset)[kTokenTiles], int step) {
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) {
        const uint4 v = *reinterpret_cast<const uint4*>(stage + offset[tt] + step * 64);
        b[tt][0] = v.x, b[tt][1] = v.y, b[tt][2] = v.z, b[tt][3] = v.w;
      }
    }
  };

  /// acc += the warp's 64 rows of the stage times its tokens.
  template <int kTokenTiles, int kRowWarps>
  __device__ static __forceinline__ void multiply(const unsigned char* stage, int row_warp, int lane,
                                                  const int (&token_offset)[kTokenTiles], std::uint32_t magic,
                                                  float (&acc)[4][kTokenTiles][4]) {
    const unsigned char* codes = stage + row_warp * kW4UnitCodes + lane * 16;
    const unsigned char* groups = stage + kRowWarps * kW4UnitCodes + row_warp * (kGroups * kW4GroupBytes);
    W4Groups group;
    Tokens<kTokenTiles> tokens;
    if (kGroups == 1) group.load(groups, lane / 4);
    if constexpr (kScaleSums && kGroups == 1) {
      // The group's sums of all rows at once take more registers than reading the tokens twice takes time.
      constexpr int kParts = kTokenTiles == 1 ? 1 : 2, kTiles = 4 / kParts;
      float sum_x[kTokenTiles][4] = {};
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        float sum[kTiles][kTokenTiles][4] = {};
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          tokens.load(stage, token_offset, step);
          if (part == 0) add_ones(tokens.b, sum_x);
#pragma unroll
          for (int pair = 0; pair < kTiles / 2; ++pair) {
            const uint4 chunk = *reinterpret_cast<const uint4*>(codes + step * 1024 + (part + pair) * 512);
            add(chunk.x, chunk.y, tokens.b, magic, sum[2 * pair]);
            add(chunk.z, chunk.w, tokens.b, magic, sum[2 * pair + 1]);
          }
        }
#pragma unroll
        for (int rt = 0; rt < kTiles; ++rt) scale(group, part * kTiles + rt, sum[rt], sum_x, acc[part * kTiles + rt]);
      }
    } else {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint4 chunks[2] = {*reinterpret_cast<const uint4*>(codes + step * 1024),
                                 *reinterpret_cast<const uint4*>(codes + step * 1024 + 512)};
        if (kGroups == 4) group.load(groups + step * kW4GroupBytes, lane / 4);
        tokens.load(stage, token_offset, step);
        if constexpr (kScaleSums) {
          float sum_x[kTokenTiles][4] = {};
          add_ones(tokens.b, sum_x);
#pragma unroll
          for (int rt = 0; rt < 4; ++rt) {
            float sum[kTokenTiles][4] = {};
            add(w4_word(chunks, rt, 0), w4_word(chunks, rt, 1), tokens.b, magic, sum);
            scale(group, rt, sum, sum_x, acc[rt]);
          }
        } else {
          scale_weights(group, chunks, tokens.b, magic, acc);
        }
      }
    }
  }

  // sum (u - zero) x = sum (128 + u) x - (128 + zero) sum x, where a product with ones gives the last sum in the place
  // where the lane needs it: no subtraction per weight.
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
                                             const std::uint32_t (&b)[kTokenTiles][4], std::uint32_t magic,
                                             float (&sum)[kTokenTiles][4]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      std::uint32_t a[4];
      const std::uint32_t word = j == 0 ? word0 : word1;
      w4_unpack(word, magic, a);
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt) {
        mma_bf16(sum[tt], a, b[tt][2 * j], b[tt][2 * j + 1]);
      }
    }
  }
  template <int kTokenTiles>
  __device__ static __forceinline__ void scale(const W4Groups& group, int rt, const float (&sum)[kTokenTiles][4],
                                               const float (&sum_x)[kTokenTiles][4], float (&acc)[kTokenTiles][4]) {
    float zero[2], scale[2];
    group.as_floats(rt, zero, scale);
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        acc[tt][i] = fmaf(scale[i / 2], fmaf(-zero[i / 2], sum_x[tt][i % 2], sum[tt][i]), acc[tt][i]);
      }
  }

  template <int kTokenTiles>
  __device__ static __forceinline__ void scale_weights(const W4Groups& group, const uint4 (&chunks)[2],
                                                       const std::uint32_t (&b)[kTokenTiles][4], std::uint32_t magic,
                                                       float (&acc)[4][kTokenTiles][4]) {
#pragma unroll
    for (int rt = 0; rt < 4; ++rt) {
      std::uint32_t zero[2], scale[2];
      group.broadcast(rt, zero, scale);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        std::uint32_t a[4];
        w4_unpack(w4_word(chunks, rt, j), magic, a);
        w4_scale(a, zero, scale);
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(acc[rt][tt], a, b[tt][2 * j], b[tt][2 * j + 1]);
      }
    }
  }
};

struct Call {
  const __nv_bfloat16* x;
  const W4Weights& w;
  __nv_bfloat16* y;
  int m;
  void* workspace;
  cudaStream_t stream;
  bool programmatic;
};

#ifndef QW_R
#define QW_R 4
#define QW_S 2
#define QW_A 1
#define QW_N 2
#endif
template <int kGroups, int kTokenTiles, bool kScaleSums, int kRowWarps, int kSplit, int kActive, int kResident>
cudaError_t run(const Call& c) {
  using Format = W4Format<kGroups, kScaleSums>;
  const typename Format::Weights weights{static_cast<const unsigned char*>(c.w.codes),
                                         static_cast<const unsigned char*>(c.w.groups),
                                         (c.w.n + kW4RowBlock - 1) / kW4RowBlock};
  return ring::launch<Format, kTokenTiles, kRowWarps, kSplit, kActive, kResident>(
      weights, c.x, c.y, c.w.n, c.w.k, c.m, c.workspace, c.programmatic, c.stream);
}

template <int kGroups>
cudaError_t choose(const Call& c) {
  if (c.m <= 8) return run<kGroups, 1, true, QW_R, QW_S, QW_A, QW_N>(c);
  if (c.m <= 16) return run<kGroups, 2, true, QW_R, QW_S, QW_A, QW_N>(c);
#ifndef QW_FEW
  if (c.m <= 32) return run<kGroups, 4, false, 4, 2, 1, 1>(c);
  return run<kGroups, 8, false, 4, 2, 1, 1>(c);
#endif
  return cudaErrorInvalidValue;
}

/// Scales per row and unit of 128 columns, as packed.
int groups_per_unit(int group_size) { return group_size < kW4Unit ? 4 : 1; }
int blocks(int n, int k) { return (n + kW4RowBlock - 1) / kW4RowBlock * ((k + kW4Unit - 1) / kW4Unit); }

bool valid(const W4Weights& w) {
  const bool group = w.group_size == w.k || w.group_size == 32 || w.group_size == 64 ||
                     (w.group_size > 0 && w.group_size % kW4Unit == 0);
  return group && w.n > 0 && w.k > 0 && w.n % 16 == 0 && w.k % 16 == 0;
}

/// One thread per word of codes: two rows, four columns.
__global__ void repack_codes(const std::uint8_t* __restrict__ codes, int row_blocks, int row_offset, int k, int units,
                             std::uint32_t* __restrict__ out) {
  const int quad = blockIdx.x * blockDim.x + threadIdx.x;  // of columns
  const int pair = blockIdx.y;                             // of rows g, g + 8
  const int column = quad * 4;
  if (column >= units * kW4Unit) return;
  const int row = row_offset + pair / 8 * 16 + pair % 8;
  std::uint32_t word = 0;
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 2; ++i) {
      const int c = column + 2 * i;
      const std::size_t part_row = static_cast<std::size_t>(row - row_offset + h * 8);
      const std::uint32_t byte = c < k ? codes[part_row * (k / 2) + c / 2] : 0;
      word |= ((byte & 15u) | (byte >> 4) << 16) << (4 * (2 * i + h));
    }
  const int rt = row % 64 / 16, g = row % 8, t = column % 32 / 8, j = column % 8 / 4;
  const std::size_t block = w4_block(row_blocks, units, row / 64, column / kW4Unit);
  const int step = column % kW4Unit / 32;
  out[block * (kW4UnitCodes / 4) + step * 256 + rt / 2 * 128 + (g * 4 + t) * 4 + rt % 2 * 2 + j] = word;
}

/// One thread per 16-row tile's row pair and packed group.
__global__ void repack_groups(const std::uint16_t* __restrict__ scales, const std::uint8_t* __restrict__ zeros,
                              int row_blocks, int row_offset, int k, int group_size, int units, int per_unit,
                              unsigned char* __restrict__ out) {
  const int packed = blockIdx.x * blockDim.x + threadIdx.x;
  if (packed >= units * per_unit) return;
  const int part_row = blockIdx.y / 8 * 16 + blockIdx.y % 8;
  const int row = row_offset + part_row, rt = row % 64 / 16, g = row % 8;
  const int column = packed * (kW4Unit / per_unit);
  const int count = (k + group_size - 1) / group_size;
  unsigned char* block =
      out + (w4_block(row_blocks, units, row / 64, packed / per_unit) * per_unit + packed % per_unit) * kW4GroupBytes;
  std::uint8_t zero = 0;
  for (int h = 0; h < 2; ++h) {
    const std::size_t from = static_cast<std::size_t>(part_row + h * 8) * count + column / group_size;
    // Columns past k: a scale of zero, so that they add nothing.
    reinterpret_cast<std::uint16_t*>(block)[g * 8 + rt * 2 + h] = column < k ? scales[from] : 0;
    if (column < k) zero |= static_cast<std::uint8_t>((zeros[from] & 15) << (4 * h));
  }
  block[128 + g * 4 + rt] = zero;
}

/// One thread per 16-byte chunk of codes: four rows of eight columns.
__global__ void dequantize(const uint4* __restrict__ codes, const unsigned char* __restrict__ groups, int n, int k,
                           int units, int per_unit, __nv_bfloat16* __restrict__ out) {
  const int chunk = threadIdx.x / 32 % 2, lane = threadIdx.x % 32, step = threadIdx.x / 64;
  const std::size_t block =
      w4_block(static_cast<int>(gridDim.y), units, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x));
  const int g = lane / 4, t = lane % 4;
  const int column = blockIdx.x * kW4Unit + step * 32 + t * 8;
  if (column >= k) return;
  const uint4 words = codes[block * (kW4UnitCodes / 16) + step * 64 + chunk * 32 + lane];
  W4Groups group;
  group.load(groups + (block * per_unit + (per_unit == 4 ? step : 0)) * kW4GroupBytes, g);
  const uint4 chunks[2] = {words, words};
  const std::uint32_t magic = w4_magic();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t zero[2], scale[2], a[2][4];
    if (chunk == 0) {
      group.broadcast(half, zero, scale);
    } else {
      group.broadcast(2 + half, zero, scale);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      w4_unpack(w4_word(chunks, half, j), magic, a[j]);
      w4_scale(a[j], zero, scale);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = blockIdx.y * kW4RowBlock + (chunk * 2 + half) * 16 + h * 8 + g;
      if (row < n)
        *reinterpret_cast<uint4*>(out + static_cast<std::size_t>(row) * k + column) =
            make_uint4(a[0][h], a[0][2 + h], a[1][h], a[1][2 + h]);
    }
  }
}

}  // namespace

std::size_t w4_codes_bytes(int n, int k) { return static_cast<std::size_t>(blocks(n, k)) * kW4UnitCodes; }

std::size_t w4_groups_bytes(int n, int k, int group_size) {
  return static_cast<std::size_t>(blocks(n, k)) * groups_per_unit(group_size) * kW4GroupBytes;
}

std::size_t w4_workspace_bytes(int m) {
  // Two partial tiles a CTA, of 512 rows at most.
  return ring::kCounterBytes + static_cast<std::size_t>(2 * ring::kMaxGrid) * 512 * m * sizeof(float);
}

cudaError_t w4_repack(const std::uint8_t* codes, const std::uint16_t* scales, const std::uint8_t* zeros, int n_part,
                      int row_offset, const W4Weights& out, cudaStream_t stream) {
  if (!valid(out) || n_part % 16 != 0 || row_offset % 16 != 0 || n_part <= 0 || row_offset + n_part > out.n)
    return cudaErrorInvalidValue;
  const int units = (out.k + kW4Unit - 1) / kW4Unit, per_unit = groups_per_unit(out.group_size);
  const int row_blocks = (out.n + kW4RowBlock - 1) / kW4RowBlock;
  const auto pairs = static_cast<unsigned>(n_part / 2);
  constexpr unsigned kMaxPairs = 32768;  // of one launch: the grid's second dimension ends at 65535
  for (unsigned first = 0; first < pairs; first += kMaxPairs) {
    const unsigned count = pairs - first < kMaxPairs ? pairs - first : kMaxPairs;
    const std::size_t row = static_cast<std::size_t>(first) * 2;
    const std::size_t group_count = static_cast<std::size_t>((out.k + out.group_size - 1) / out.group_size);
    repack_codes<<<dim3(static_cast<unsigned>(units + 3) / 4, count), 128, 0, stream>>>(
        codes + row * (out.k / 2), row_blocks, row_offset + static_cast<int>(row), out.k, units,
        static_cast<std::uint32_t*>(const_cast<void*>(out.codes)));
    repack_groups<<<dim3(static_cast<unsigned>(units * per_unit + 63) / 64, count), 64, 0, stream>>>(
        scales + row * group_count, zeros + row * group_count, row_blocks, row_offset + static_cast<int>(row), out.k,
        out.group_size, units, per_unit, static_cast<unsigned char*>(const_cast<void*>(out.groups)));
  }
  return cudaGetLastError();
}

cudaError_t w4_linear(const __nv_bfloat16* x, const W4Weights& w, __nv_bfloat16* y, int m, void* workspace,
                      cudaStream_t stream, bool programmatic) {
  if (!valid(w) || m < 1 || m > kW4MaxTokens) return cudaErrorInvalidValue;
  const Call call{x, w, y, m, workspace, stream, programmatic};
  return groups_per_unit(w.group_size) == 4 ? choose<4>(call) : choose<1>(call);
}

cudaError_t w4_dequantize(const W4Weights& w, __nv_bfloat16* out, cudaStream_t stream) {
  if (!valid(w)) return cudaErrorInvalidValue;
  const int units = (w.k + kW4Unit - 1) / kW4Unit;
  dequantize<<<dim3(static_cast<unsigned>(units), static_cast<unsigned>((w.n + 63) / 64)), 256, 0, stream>>>(
      static_cast<const uint4*>(w.codes), static_cast<const unsigned char*>(w.groups), w.n, w.k, units,
      groups_per_unit(w.group_size), out);
  return cudaGetLastError();
}

}  // namespace qwenbench::kernels
