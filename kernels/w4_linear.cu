#include "kernels/linear_ring.cuh"
#include "kernels/w4_linear.h"
#include "kernels/w4_multiply.cuh"

namespace qwenbench::kernels {
namespace {

struct Call {
  const __nv_bfloat16* x;
  const W4Weights& w;
  __nv_bfloat16* y;
  int m;
  void* workspace;
  cudaStream_t stream;
  bool programmatic;
};

template <int kGroups, int kTokenTiles, bool kScaleSums, int kRowWarps, int kSplit, int kActive, int kResident>
cudaError_t run(const Call& c) {
  using Format = W4Format<kGroups, kScaleSums>;
  const typename Format::Weights weights{static_cast<const unsigned char*>(c.w.codes),
                                         static_cast<const unsigned char*>(c.w.groups),
                                         (c.w.n + kW4RowBlock - 1) / kW4RowBlock};
  return ring::launch<Format, kTokenTiles, kRowWarps, kSplit, kActive, kResident>(
      weights, c.x, c.y, c.w.n, c.w.k, c.m, c.w.paired, c.workspace, c.programmatic, c.stream);
}

template <int kGroups>
cudaError_t choose(const Call& c) {
  if (c.m <= 8) return run<kGroups, 1, true, 4, 2, 1, 2>(c);
  if (c.m <= 16) return run<kGroups, 2, true, 4, 2, 1, 2>(c);
  return run<kGroups, 4, false, 4, 2, 1, 1>(c);
}
constexpr int kTokensAtOnce = 32;

/// Scales per row and unit of 128 columns, as packed.
int groups_per_unit(int group_size) { return group_size < kW4Unit ? 4 : 1; }
int blocks(int n, int k) { return (n + kW4RowBlock - 1) / kW4RowBlock * ((k + kW4Unit - 1) / kW4Unit); }

bool valid(const W4Weights& w) {
  const bool group = w.group_size == w.k || w.group_size == 32 || w.group_size == 64 ||
                     (w.group_size > 0 && w.group_size % kW4Unit == 0);
  if (w.paired && w.n % 32 != 0) return false;
  return group && w.n > 0 && w.k > 0 && w.n % 16 == 0 && w.k % 16 == 0;
}

/// One thread per word of codes: two rows, four columns.
__global__ void repack_codes(const std::uint8_t* __restrict__ codes, const W4Weights w, int row_blocks, int row_offset,
                             int units, std::uint32_t* __restrict__ out) {
  const int k = w.k;
  const int quad = blockIdx.x * blockDim.x + threadIdx.x;  // of columns
  const int pair = blockIdx.y;                             // of rows g, g + 8
  const int column = quad * 4;
  if (column >= units * kW4Unit) return;
  const int part_pair = pair / 8 * 16 + pair % 8;
  const int row = w4_packed_row(row_offset + part_pair, w.n, w.paired);
  std::uint32_t word = 0;
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 2; ++i) {
      const int c = column + 2 * i;
      const std::size_t part_row = static_cast<std::size_t>(part_pair + h * 8);
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
                              const W4Weights w, int row_blocks, int row_offset, int units, int per_unit,
                              unsigned char* __restrict__ out) {
  const int k = w.k, group_size = w.group_size;
  const int packed = blockIdx.x * blockDim.x + threadIdx.x;
  if (packed >= units * per_unit) return;
  const int part_row = blockIdx.y / 8 * 16 + blockIdx.y % 8;
  const int row = w4_packed_row(row_offset + part_row, w.n, w.paired), rt = row % 64 / 16, g = row % 8;
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
                           int units, int per_unit, bool paired, __nv_bfloat16* __restrict__ out) {
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
  const W4Constants constants = W4Constants::make();
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
      w4_unpack(w4_word(chunks, half, j), constants, a[j]);
      w4_scale(a[j], zero, scale);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = blockIdx.y * kW4RowBlock + (chunk * 2 + half) * 16 + h * 8 + g;
      if (row < n)
        *reinterpret_cast<uint4*>(out + static_cast<std::size_t>(w4_row(row, n, paired)) * k + column) =
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
        codes + row * (out.k / 2), out, row_blocks, row_offset + static_cast<int>(row), units,
        static_cast<std::uint32_t*>(const_cast<void*>(out.codes)));
    repack_groups<<<dim3(static_cast<unsigned>(units * per_unit + 63) / 64, count), 64, 0, stream>>>(
        scales + row * group_count, zeros + row * group_count, out, row_blocks, row_offset + static_cast<int>(row),
        units, per_unit, static_cast<unsigned char*>(const_cast<void*>(out.groups)));
  }
  return cudaGetLastError();
}

cudaError_t w4_linear(const __nv_bfloat16* x, const W4Weights& w, __nv_bfloat16* y, int m, void* workspace,
                      cudaStream_t stream, bool programmatic) {
  if (!valid(w) || m < 1 || m > kW4MaxTokens) return cudaErrorInvalidValue;
  const int passes = (m + kTokensAtOnce - 1) / kTokensAtOnce, most = (m + passes - 1) / passes;
  for (int first = 0; first < m; first += most) {
    const std::ptrdiff_t row = first;
    const Call call{x + row * w.k, w, y + row * w.n, std::min(most, m - first), workspace, stream, programmatic};
    const cudaError_t error = groups_per_unit(w.group_size) == 4 ? choose<4>(call) : choose<1>(call);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t w4_dequantize(const W4Weights& w, __nv_bfloat16* out, cudaStream_t stream) {
  if (!valid(w)) return cudaErrorInvalidValue;
  const int units = (w.k + kW4Unit - 1) / kW4Unit;
  dequantize<<<dim3(static_cast<unsigned>(units), static_cast<unsigned>((w.n + 63) / 64)), 256, 0, stream>>>(
      static_cast<const uint4*>(w.codes), static_cast<const unsigned char*>(w.groups), w.n, w.k, units,
      groups_per_unit(w.group_size), w.paired, out);
  return cudaGetLastError();
}

}  // namespace qwenbench::kernels
