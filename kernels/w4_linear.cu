#include "linear_stream.cuh"
#include "w4_format.cuh"
#include "w4_linear.h"

namespace qwenbench::kernels {
namespace {

/// kGroups: scales per row and unit of 128 columns, 1 or 4. kScaleSums: scale the fp32 sums instead of the weights.
template <int kGroups, bool kScaleSums, int kCtas>
struct W4Format {
  struct Weights {
    const unsigned char* codes;
    const unsigned char* groups;
    int row_blocks;
  };
  static constexpr int kRowTiles = 4;
  static constexpr int kStepK = 32;
  static constexpr int kSlots = 2;
  static constexpr int kCtasPerSm = kCtas;
  static constexpr int kUnitBytes = kW4UnitCodes + kGroups * kW4GroupBytes;

  __device__ static __forceinline__ int column(int /*part*/, int t) { return t * 8; }

  __device__ static __forceinline__ void fetch(const Weights& w, const stream::Shape& shape, int row_block, int unit,
                                               int step, unsigned char* to, int lane) {
    // Rows past the last block are read from it, and not stored.
    const std::size_t block = static_cast<std::size_t>(min(row_block, w.row_blocks - 1)) * shape.units + unit;
    const unsigned char* codes = w.codes + block * kW4UnitCodes + step * 1024 + lane * 16;
    const std::uint32_t shared = shared_address(to) + lane * 16;
    cp_async16(shared + step * 1024, codes);
    cp_async16(shared + step * 1024 + 512, codes + 512);
    if ((kGroups == 4 || step == 0) && lane < kW4GroupBytes / 16) {
      const int group = kGroups == 4 ? step : 0;
      cp_async16(shared + kW4UnitCodes + group * kW4GroupBytes,
                 w.groups + (block * kGroups + group) * kW4GroupBytes + lane * 16);
    }
  }

  template <int kTokenTiles>
  struct State {
    W4Groups groups;

    __device__ __forceinline__ void begin(const Weights&, const stream::Shape&, int, int) {}
    __device__ __forceinline__ void end(float (&)[kRowTiles][kTokenTiles][4]) {}

    __device__ __forceinline__ void step(const unsigned char* unit, int step, int lane,
                                         const std::uint32_t (&b)[kTokenTiles][1][4],
                                         float (&acc)[kRowTiles][kTokenTiles][4]) {
      const auto* codes = reinterpret_cast<const uint4*>(unit + step * 1024 + lane * 16);
      const uint4 chunks[2] = {codes[0], codes[32]};
      if (kGroups == 4 || step == 0)
        groups.load(unit + kW4UnitCodes + (kGroups == 4 ? step : 0) * kW4GroupBytes, lane / 4);
      if constexpr (kScaleSums) {
        scale_sums(chunks, b, acc);
      } else {
        scale_weights(chunks, b, acc);
      }
    }

    __device__ __forceinline__ void scale_weights(const uint4 (&chunks)[2], const std::uint32_t (&b)[kTokenTiles][1][4],
                                                  float (&acc)[kRowTiles][kTokenTiles][4]) {
#pragma unroll
      for (int rt = 0; rt < kRowTiles; ++rt) {
        std::uint32_t zero[2], scale[2];
        groups.broadcast(rt, zero, scale);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          std::uint32_t a[4];
          w4_unpack(w4_word(chunks, rt, j), a);
          w4_scale(a, zero, scale);
#pragma unroll
          for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(acc[rt][tt], a, b[tt][0][2 * j], b[tt][0][2 * j + 1]);
        }
      }
    }

    /// sum (u - zero) x = sum (128 + u) x - (128 + zero) sum x, where a product with ones gives the last sum in the
    /// place where the lane needs it: no subtraction per weight.
    __device__ __forceinline__ void scale_sums(const uint4 (&chunks)[2], const std::uint32_t (&b)[kTokenTiles][1][4],
                                               float (&acc)[kRowTiles][kTokenTiles][4]) {
      const std::uint32_t ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
      float sum_x[kTokenTiles][4] = {};
#pragma unroll
      for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
        for (int j = 0; j < 2; ++j) mma_bf16(sum_x[tt], ones, b[tt][0][2 * j], b[tt][0][2 * j + 1]);
#pragma unroll
      for (int rt = 0; rt < kRowTiles; ++rt) {
        float zero[2], scale[2], sum[kTokenTiles][4];
        groups.as_floats(rt, zero, scale);
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[tt][i] = -zero[i / 2] * sum_x[tt][i % 2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          std::uint32_t a[4];
          w4_unpack(w4_word(chunks, rt, j), a);
#pragma unroll
          for (int tt = 0; tt < kTokenTiles; ++tt) mma_bf16(sum[tt], a, b[tt][0][2 * j], b[tt][0][2 * j + 1]);
        }
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[rt][tt][i] = fmaf(scale[i / 2], sum[tt][i], acc[rt][tt][i]);
      }
    }
  };
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

template <int kGroups, int kTokenTiles, int kSplit>
cudaError_t run(const Call& c) {
  using Format = W4Format<kGroups, kTokenTiles == 1, (kTokenTiles <= 2 ? 2 : 1)>;
  const typename Format::Weights weights{static_cast<const unsigned char*>(c.w.codes),
                                         static_cast<const unsigned char*>(c.w.groups),
                                         (c.w.n + kW4RowBlock - 1) / kW4RowBlock};
  return stream::launch<Format, kTokenTiles, kSplit>(weights, c.x, c.y, c.w.n, c.w.k, c.m, c.workspace, c.programmatic,
                                                     c.stream);
}

/// More warps on a tile's columns: fewer partial sums between CTAs. Fewer: x is read less often.
template <int kGroups>
cudaError_t choose(const Call& c, int split) {
  if (split == 0) split = c.m <= 2 ? 8 : c.m <= 8 ? 4 : 2;
  if (c.m <= 8) {
    if (split == 8) return run<kGroups, 1, 8>(c);
    return split == 4 ? run<kGroups, 1, 4>(c) : run<kGroups, 1, 2>(c);
  }
  if (c.m <= 16) return split == 4 ? run<kGroups, 2, 4>(c) : run<kGroups, 2, 2>(c);
  return c.m <= 32 ? run<kGroups, 4, 2>(c) : run<kGroups, 8, 2>(c);
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
__global__ void repack_codes(const std::uint8_t* __restrict__ codes, int n_part, int row_offset, int k, int units,
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
  const std::size_t block = static_cast<std::size_t>(row / 64) * units + column / kW4Unit;
  const int step = column % kW4Unit / 32;
  out[block * (kW4UnitCodes / 4) + step * 256 + rt / 2 * 128 + (g * 4 + t) * 4 + rt % 2 * 2 + j] = word;
}

/// One thread per 16-row tile's row pair and packed group.
__global__ void repack_groups(const std::uint16_t* __restrict__ scales, const std::uint8_t* __restrict__ zeros,
                              int row_offset, int k, int group_size, int units, int per_unit,
                              unsigned char* __restrict__ out) {
  const int packed = blockIdx.x * blockDim.x + threadIdx.x;
  if (packed >= units * per_unit) return;
  const int part_row = blockIdx.y / 8 * 16 + blockIdx.y % 8;
  const int row = row_offset + part_row, rt = row % 64 / 16, g = row % 8;
  const int column = packed * (kW4Unit / per_unit);
  const int count = (k + group_size - 1) / group_size;
  unsigned char* block =
      out +
      ((static_cast<std::size_t>(row / 64) * units + packed / per_unit) * per_unit + packed % per_unit) * kW4GroupBytes;
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
  const std::size_t block = static_cast<std::size_t>(blockIdx.y) * units + blockIdx.x;
  const int g = lane / 4, t = lane % 4;
  const int column = blockIdx.x * kW4Unit + step * 32 + t * 8;
  if (column >= k) return;
  const uint4 words = codes[block * (kW4UnitCodes / 16) + step * 64 + chunk * 32 + lane];
  W4Groups group;
  group.load(groups + (block * per_unit + (per_unit == 4 ? step : 0)) * kW4GroupBytes, g);
  const uint4 chunks[2] = {words, words};
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
      w4_unpack(w4_word(chunks, half, j), a[j]);
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
  // Two partial tiles a CTA, of 256 rows at most.
  return stream::kCounterBytes + static_cast<std::size_t>(2 * stream::kMaxGrid) * 256 * m * sizeof(float);
}

cudaError_t w4_repack(const std::uint8_t* codes, const std::uint16_t* scales, const std::uint8_t* zeros, int n_part,
                      int row_offset, const W4Weights& out, cudaStream_t stream) {
  if (!valid(out) || n_part % 16 != 0 || row_offset % 16 != 0 || n_part <= 0 || row_offset + n_part > out.n)
    return cudaErrorInvalidValue;
  const int units = (out.k + kW4Unit - 1) / kW4Unit, per_unit = groups_per_unit(out.group_size);
  const auto pairs = static_cast<unsigned>(n_part / 2);
  constexpr unsigned kMaxPairs = 32768;  // of one launch: the grid's second dimension ends at 65535
  for (unsigned first = 0; first < pairs; first += kMaxPairs) {
    const unsigned count = pairs - first < kMaxPairs ? pairs - first : kMaxPairs;
    const std::size_t row = static_cast<std::size_t>(first) * 2;
    const std::size_t group_count = static_cast<std::size_t>((out.k + out.group_size - 1) / out.group_size);
    repack_codes<<<dim3(static_cast<unsigned>(units + 3) / 4, count), 128, 0, stream>>>(
        codes + row * (out.k / 2), n_part, row_offset + static_cast<int>(row), out.k, units,
        static_cast<std::uint32_t*>(const_cast<void*>(out.codes)));
    repack_groups<<<dim3(static_cast<unsigned>(units * per_unit + 63) / 64, count), 64, 0, stream>>>(
        scales + row * group_count, zeros + row * group_count, row_offset + static_cast<int>(row), out.k,
        out.group_size, units, per_unit, static_cast<unsigned char*>(const_cast<void*>(out.groups)));
  }
  return cudaGetLastError();
}

cudaError_t w4_linear_split(const __nv_bfloat16* x, const W4Weights& w, __nv_bfloat16* y, int m, void* workspace,
                            cudaStream_t stream, bool programmatic, int split) {
  if (!valid(w) || m < 1 || m > kW4MaxTokens) return cudaErrorInvalidValue;
  const Call call{x, w, y, m, workspace, stream, programmatic};
  return groups_per_unit(w.group_size) == 4 ? choose<4>(call, split) : choose<1>(call, split);
}

cudaError_t w4_linear(const __nv_bfloat16* x, const W4Weights& w, __nv_bfloat16* y, int m, void* workspace,
                      cudaStream_t stream, bool programmatic) {
  return w4_linear_split(x, w, y, m, workspace, stream, programmatic, 0);
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
