// The frame of all decode products y[m, n] = x[m, k] * W^T with few tokens m: a stream of weights, read once.
//
// One CTA of 8 warps per SM. The matrix is cut into tiles of kWarpRows * 8/kSplit rows, and every tile into units of
// 128 columns; CTA c takes the units [total * c / grid, total * (c + 1) / grid) of all tiles in a row, so that no SM
// waits for a last wave. Inside a CTA 8/kSplit warps share the rows and kSplit warps take turns with the units. Each
// lane copies the weights it will need itself through its own slots of shared memory (cp.async), so that the loop has
// no barrier between warps, and the copies of the next kernel of the stream start before x is there (programmatic
// dependent launch).
//
// Weights are the 16-row operand of mma.m16n8k16, tokens the 8-column one. Columns are permuted alike in both so that a
// lane's elements are neighbours in memory: its B fragments come straight from x by 16-byte loads.
//
// A tile whose columns are spread over several CTAs is summed by the CTA that finishes last, in the order of the
// columns, from fp32 partial sums in the workspace: the result does not depend on who was last.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/launch.h"
#include "kernels/linear_ptx.cuh"

namespace qwenbench::kernels::stream {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kUnitK = 128;
constexpr int kMaxGrid = 256;

struct Shape {
  int n, k, m;
  int units;  // per tile: ceil(k / 128)
  int total;  // units of all tiles
};

/// First unit of CTA `cta`. total < 2^24 and grid <= 256, so that products fit 32 bits.
__host__ __device__ inline int range_begin(int total, int cta, int grid) {
  return static_cast<int>(static_cast<unsigned>(total) * static_cast<unsigned>(cta) / static_cast<unsigned>(grid));
}
/// The CTA whose range holds `unit`.
__device__ inline int owner(int total, int unit, int grid) {
  return static_cast<int>((static_cast<unsigned>(unit + 1) * static_cast<unsigned>(grid) - 1u) /
                          static_cast<unsigned>(total));
}

/// Workspace: counters (zero between kernels), then partial sums.
constexpr int kCounters = 16384;
constexpr std::size_t kCounterBytes = kCounters * sizeof(unsigned);

__device__ __forceinline__ void store4(__nv_bfloat16* y, float4 v) {
  uint2 bits{bf16x2_bits(__floats2bfloat162_rn(v.x, v.y)), bf16x2_bits(__floats2bfloat162_rn(v.z, v.w))};
  *reinterpret_cast<uint2*>(y) = bits;
}
__device__ __forceinline__ void store4(float* y, float4 v) { *reinterpret_cast<float4*>(y) = v; }
__device__ __forceinline__ void store1(__nv_bfloat16* y, float v) { *y = __float2bfloat16_rn(v); }
__device__ __forceinline__ void store1(float* y, float v) { *y = v; }

template <class Out>
__device__ __forceinline__ void store_rows(Out* y, const Shape& shape, int token, int row, float4 v) {
  Out* to = y + static_cast<std::size_t>(token) * shape.n + row;
  if (row + 4 <= shape.n && (shape.n & 3) == 0) {
    store4(to, v);
    return;
  }
  const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (row + i < shape.n) store1(to + i, values[i]);
}

template <int kThreadsOfGroup>
__device__ __forceinline__ void group_barrier(int id) {
  if constexpr (kThreadsOfGroup == 32) {
    __syncwarp();
  } else {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreadsOfGroup) : "memory");
  }
}

/// One warp's view of the launch.
template <class Format, int kTokenTiles, int kSplit>
struct Layout {
  static constexpr int kRowTiles = Format::kRowTiles;
  static constexpr int kWarpRows = kRowTiles * 16;
  static constexpr int kRowWarps = kWarps / kSplit;
  static constexpr int kTileRows = kRowWarps * kWarpRows;
  static constexpr int kSteps = kUnitK / Format::kStepK;
  static constexpr int kSlots = Format::kSlots;     // units in flight per warp
  static constexpr int kSumStride = kWarpRows + 4;  // conflict-free: 2 * stride = 8 modulo 32
  static constexpr int kSumFloats = kWarps * 8 * kSumStride;
  static constexpr int kRingBytes = kWarps * kSlots * Format::kUnitBytes;
  static constexpr int kSharedBytes = kRingBytes + kSumFloats * 4 + kWarps * 4;
};

/// Sums the tile's rows over the CTA's warps and, where its columns are spread over CTAs, over these.
template <class Format, int kTokenTiles, int kSplit, class Out>
__device__ __forceinline__ void finish_tile(const Shape& shape, int tile, int begin, int end,
                                            float (&acc)[Format::kRowTiles][kTokenTiles][4], float* sums, int* flags,
                                            Out* y, float* partials, unsigned* counters) {
  using L = Layout<Format, kTokenTiles, kSplit>;
  constexpr int kGroup = 32 * kSplit;
  constexpr int kQuads = L::kWarpRows / 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row_warp = warp / kSplit;
  const int in_group = threadIdx.x % kGroup;
  const int g = lane / 4, t = lane % 4;
  const int first_row = tile * L::kTileRows + row_warp * L::kWarpRows;
  const int tile_begin = tile * shape.units, tile_end = tile_begin + shape.units;
  const bool whole = begin <= tile_begin && end >= tile_end;
  const int slot = begin > tile_begin ? 0 : 1;
  float* group_sums = sums + row_warp * kSplit * 8 * L::kSumStride;
  float* mine = sums + warp * 8 * L::kSumStride;
  const std::size_t block = static_cast<std::size_t>(L::kTileRows) * shape.m;
  const std::size_t part = static_cast<std::size_t>(row_warp) * L::kWarpRows * shape.m;

#pragma unroll
  for (int tt = 0; tt < kTokenTiles; ++tt) {
    if (tt * 8 < shape.m) {
#pragma unroll
      for (int rt = 0; rt < L::kRowTiles; ++rt)
#pragma unroll
        for (int i = 0; i < 4; ++i) mine[(2 * t + i % 2) * L::kSumStride + rt * 16 + g + (i / 2) * 8] = acc[rt][tt][i];
      group_barrier<kGroup>(1 + row_warp);
      const int tokens = min(8, shape.m - tt * 8);
      for (int i = in_group; i < tokens * kQuads; i += kGroup) {
        const int token = i / kQuads, quad = i % kQuads;
        float4 sum = *reinterpret_cast<const float4*>(group_sums + token * L::kSumStride + quad * 4);
#pragma unroll
        for (int s = 1; s < kSplit; ++s) {
          const float4 v = *reinterpret_cast<const float4*>(group_sums + (s * 8 + token) * L::kSumStride + quad * 4);
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        if (whole) {
          store_rows(y, shape, tt * 8 + token, first_row + quad * 4, sum);
        } else {
          float* to = partials + (2 * blockIdx.x + slot) * block + part + (tt * 8 + token) * L::kWarpRows + quad * 4;
          __stcg(reinterpret_cast<float4*>(to), sum);
        }
      }
      group_barrier<kGroup>(1 + row_warp);
    }
  }
#pragma unroll
  for (int rt = 0; rt < L::kRowTiles; ++rt)
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[rt][tt][i] = 0.f;
  if (whole) return;

  const int first_cta = owner(shape.total, tile_begin, gridDim.x);
  const int last_cta = owner(shape.total, tile_end - 1, gridDim.x);
  __threadfence();
  group_barrier<kGroup>(1 + row_warp);
  if (in_group == 0) {
    unsigned* counter = counters + tile * L::kRowWarps + row_warp;
    const bool last = atomicAdd(counter, 1u) == static_cast<unsigned>(last_cta - first_cta);
    if (last) *counter = 0;
    flags[row_warp] = last;
  }
  group_barrier<kGroup>(1 + row_warp);
  if (flags[row_warp] == 0) return;
  __threadfence();
  for (int i = in_group; i < shape.m * kQuads; i += kGroup) {
    const std::size_t at = part + static_cast<std::size_t>(i) * 4;
    float4 sum = __ldcg(reinterpret_cast<const float4*>(partials + (2 * first_cta + 1) * block + at));
#pragma unroll 4
    for (int c = first_cta + 1; c <= last_cta; ++c) {
      const float4 v = __ldcg(reinterpret_cast<const float4*>(partials + 2 * c * block + at));
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    store_rows(y, shape, i / kQuads, first_row + (i % kQuads) * 4, sum);
  }
}

/// B fragments of one step: for every 8 tokens and 32 columns one 16-byte load per lane.
template <class Format, int kTokenTiles>
struct Tokens {
  static constexpr int kParts = Format::kStepK / 32;
  std::uint32_t b[kTokenTiles][kParts][4];

  __device__ __forceinline__ void load(const __nv_bfloat16* x, const Shape& shape, int column, int lane) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int c = column + Format::column(part, t);
        const int token = tt * 8 + g;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (token < shape.m && c < shape.k) v = load16(x + static_cast<std::size_t>(token) * shape.k + c);
        b[tt][part][0] = v.x, b[tt][part][1] = v.y, b[tt][part][2] = v.z, b[tt][part][3] = v.w;
      }
  }
};

/// A warp's place among the units: every kSplit-th of the CTA's range.
template <int kSplit>
struct Cursor {
  int at, tile, unit;
  __device__ __forceinline__ Cursor(int first, int units) : at(first), tile(first / units), unit(first % units) {}
  __device__ __forceinline__ void advance(int units) {
    at += kSplit;
    for (unit += kSplit; unit >= units; unit -= units) ++tile;
  }
};

template <class Format, int kTokenTiles, int kSplit, class Out>
__global__ void __launch_bounds__(kThreads, Format::kCtasPerSm)
    stream_linear(typename Format::Weights w, const __nv_bfloat16* __restrict__ x, Out* __restrict__ y, Shape shape,
                  unsigned* counters, float* partials) {
  using L = Layout<Format, kTokenTiles, kSplit>;
  extern __shared__ __align__(128) unsigned char shared[];
  float* sums = reinterpret_cast<float*>(shared + L::kRingBytes);
  int* flags = reinterpret_cast<int*>(sums + L::kSumFloats);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row_warp = warp / kSplit, split = warp % kSplit;
  unsigned char* ring = shared + warp * L::kSlots * Format::kUnitBytes;
  const int begin = range_begin(shape.total, blockIdx.x, gridDim.x);
  const int end = range_begin(shape.total, blockIdx.x + 1, gridDim.x);
  let_next_start();

  // The cursor of the copies runs kSlots units before that of the products.
  Cursor<kSplit> fetch(begin + split, shape.units), at = fetch;
  const auto copy = [&](int step, unsigned char* unit) {
    if (fetch.at < end) Format::fetch(w, shape, fetch.tile * L::kRowWarps + row_warp, fetch.unit, step, unit, lane);
    commit_copies();
  };
#pragma unroll
  for (int slot = 0; slot < L::kSlots; ++slot) {
#pragma unroll
    for (int step = 0; step < L::kSteps; ++step) copy(step, ring + slot * Format::kUnitBytes);
    fetch.advance(shape.units);
  }
  wait_for_previous();

  float acc[L::kRowTiles][kTokenTiles][4] = {};
  // x comes one step ahead where registers allow.
  constexpr bool kAhead = kTokenTiles <= 4;
  Tokens<Format, kTokenTiles> now, next;
  if (kAhead) now.load(x, shape, at.unit * kUnitK, lane);
  int slot = 0;
  for (int tile = begin / shape.units; tile * shape.units < end; ++tile) {
    const int tile_end = min(end, (tile + 1) * shape.units);
    while (at.at < tile_end) {
      unsigned char* unit = ring + slot * Format::kUnitBytes;
      const int column = at.unit * kUnitK;
      typename Format::template State<kTokenTiles> state;
      state.begin(w, shape, tile * L::kRowWarps + row_warp, at.unit);
      at.advance(shape.units);
#pragma unroll
      for (int step = 0; step < L::kSteps; ++step) {
        if (kAhead) {
          next.load(x, shape, step + 1 < L::kSteps ? column + (step + 1) * Format::kStepK : at.unit * kUnitK, lane);
        } else {
          now.load(x, shape, column + step * Format::kStepK, lane);
        }
        wait_copies<L::kSlots * L::kSteps - 1>();
        __syncwarp();
        state.step(unit, step, lane, now.b, acc);
        __syncwarp();
        copy(step, unit);
        if (kAhead) now = next;
      }
      state.end(acc);
      fetch.advance(shape.units);
      slot = slot + 1 == L::kSlots ? 0 : slot + 1;
    }
    finish_tile<Format, kTokenTiles, kSplit>(shape, tile, begin, end, acc, sums, flags, y, partials, counters);
  }
}

/// The grid and the workspace of one launch. Returns what the runtime said.
template <class Format, int kTokenTiles, int kSplit, class Out>
cudaError_t launch(const typename Format::Weights& w, const __nv_bfloat16* x, Out* y, int n, int k, int m,
                   void* workspace, bool programmatic, cudaStream_t stream) {
  using L = Layout<Format, kTokenTiles, kSplit>;
  int device = 0, sms = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  auto* kernel = stream_linear<Format, kTokenTiles, kSplit, Out>;
  if (error == cudaSuccess) error = allow_shared_memory(kernel, L::kSharedBytes);
  if (error != cudaSuccess) return error;
  Shape shape{n, k, m, (k + kUnitK - 1) / kUnitK, 0};
  const int tiles = (n + L::kTileRows - 1) / L::kTileRows;
  shape.total = tiles * shape.units;
  if (tiles * L::kRowWarps > kCounters || shape.total >= 1 << 24) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config{};
  const int grid = sms < kMaxGrid ? sms : kMaxGrid;
  config.gridDim = dim3(static_cast<unsigned>(grid < shape.total ? grid : shape.total));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = L::kSharedBytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = programmatic ? 1 : 0;
  auto* counters = static_cast<unsigned*>(workspace);
  auto* partials = reinterpret_cast<float*>(static_cast<unsigned char*>(workspace) + kCounterBytes);
  return cudaLaunchKernelEx(&config, kernel, w, x, y, shape, counters, partials);
}

}  // namespace qwenbench::kernels::stream
