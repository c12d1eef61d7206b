// The frame of the 4-bit decode products y[m, n] = x[m, k] * W^T with few tokens m: a stream of weights, read once.
//
// The matrix is cut into tiles of kTileRows rows, and every tile into units of 128 columns; CTA c takes the units
// [total * c / grid, total * (c + 1) / grid) of all tiles in a row, so that no SM waits for a last wave. One warp of
// the CTA fills a ring of stages in shared memory, a stage being one unit's weights and the tokens' 128 columns (bulk
// copies that complete on an mbarrier); it starts before x is there (programmatic dependent launch). The others
// multiply: kRowWarps share the rows of a stage and kSplit sets of them take turns with the stages.
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
#include "kernels/ring_slot.cuh"
#include "kernels/w4_format.cuh"

namespace qwenbench::kernels::ring {

constexpr int kUnitK = 128;
constexpr int kMaxGrid = 528;
constexpr int kMaxStages = 16;
constexpr int kTokenStride = kUnitK * 2 + 64;  // bytes; 64 more so that two tokens' 64 bytes fall into distinct banks

struct Shape {
  int n, k, m;
  int units;    // per tile: ceil(k / 128)
  int total;    // units of all tiles
  int stages;   // of the ring
  bool paired;  // W4Weights::paired
};

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

__device__ __forceinline__ void store_rows(__nv_bfloat16* y, const Shape& shape, int token, int row, float4 v) {
  // n is a multiple of 16: a quad of rows is inside or outside.
  if (row >= shape.n) return;
  row = w4_row(row, shape.n, shape.paired);
  const uint2 bits{bf16x2_bits(__floats2bfloat162_rn(v.x, v.y)), bf16x2_bits(__floats2bfloat162_rn(v.z, v.w))};
  *reinterpret_cast<uint2*>(y + static_cast<std::size_t>(token) * shape.n + row) = bits;
}

template <int kThreads>
__device__ __forceinline__ void group_barrier(int id) {
  if constexpr (kThreads == 32) {
    __syncwarp();
  } else {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
  }
}

template <class Format_, int kTokenTiles, int kRowWarps_, int kSplit_>
struct Layout {
  using Format = Format_;
  static constexpr int kRowWarps = kRowWarps_, kSplit = kSplit_;
  static constexpr int kWarps = kRowWarps * kSplit;
  static constexpr int kThreads = (kWarps + 1) * 32;
  static constexpr int kTileRows = kRowWarps * 64;
  static constexpr int kWeightBytes = kRowWarps * Format::kBlockBytes;
  static constexpr int kSumStride = 64 + 4;  // conflict-free: 2 * stride = 8 modulo 32

  __host__ __device__ static int token_rows(int m) { return m < kTokenTiles * 8 ? m : kTokenTiles * 8; }
  __host__ __device__ static int stage_bytes(int m) { return kWeightBytes + token_rows(m) * kTokenStride; }
  __host__ __device__ static int sum_floats(int m) { return kWarps * (m < 8 ? m : 8) * kSumStride; }
  static constexpr int kHeadBytes = 2 * kMaxStages * 8 + 64;  // barriers, flags
  __host__ static int shared_bytes(int m, int stages) {
    return kHeadBytes + stages * stage_bytes(m) + sum_floats(m) * 4;
  }
};

/// Sums the tile's rows over the CTA's warps and, where its columns are spread over CTAs, over these.
template <class L, int kTokenTiles>
__device__ __forceinline__ void finish_tile(const Shape& shape, int tile, int begin, int end,
                                            float (&acc)[4][kTokenTiles][4], float* sums, int* flags, __nv_bfloat16* y,
                                            float* partials, unsigned* counters) {
  constexpr int kGroup = 32 * L::kSplit;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row_warp = warp / L::kSplit;
  const int in_group = threadIdx.x % kGroup;
  const int g = lane / 4, t = lane % 4;
  const int first_row = tile * L::kTileRows + row_warp * 64;
  const int tile_begin = tile * shape.units, tile_end = tile_begin + shape.units;
  const bool whole = begin <= tile_begin && end >= tile_end;
  const int slot = begin > tile_begin ? 0 : 1;
  const int stored = shape.m < 8 ? shape.m : 8;
  float* group_sums = sums + row_warp * L::kSplit * stored * L::kSumStride;
  float* mine = sums + warp * stored * L::kSumStride;
  const std::size_t block = static_cast<std::size_t>(L::kTileRows) * shape.m;
  const std::size_t part = static_cast<std::size_t>(row_warp) * 64 * shape.m;

#pragma unroll
  for (int tt = 0; tt < kTokenTiles; ++tt) {
    if (tt * 8 < shape.m) {
      const int tokens = min(8, shape.m - tt * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (2 * t + i % 2 < tokens)
#pragma unroll
          for (int rt = 0; rt < 4; ++rt)
            mine[(2 * t + i % 2) * L::kSumStride + rt * 16 + g + (i / 2) * 8] =
                acc[rt][tt][i] * L::Format::sum_factor(i / 2);
      group_barrier<kGroup>(1 + row_warp);
      for (int i = in_group; i < tokens * 16; i += kGroup) {
        const int token = i / 16, quad = i % 16;
        float4 sum = *reinterpret_cast<const float4*>(group_sums + token * L::kSumStride + quad * 4);
#pragma unroll
        for (int s = 1; s < L::kSplit; ++s) {
          const float4 v =
              *reinterpret_cast<const float4*>(group_sums + (s * stored + token) * L::kSumStride + quad * 4);
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        if (whole) {
          store_rows(y, shape, tt * 8 + token, first_row + quad * 4, sum);
        } else {
          float* to = partials + (2 * blockIdx.x + slot) * block + part + (tt * 8 + token) * 64 + quad * 4;
          __stcg(reinterpret_cast<float4*>(to), sum);
        }
      }
      group_barrier<kGroup>(1 + row_warp);
    }
  }
#pragma unroll
  for (int rt = 0; rt < 4; ++rt)
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
  for (int i = in_group; i < shape.m * 16; i += kGroup) {
    const std::size_t at = part + static_cast<std::size_t>(i) * 4;
    float4 sum = __ldcg(reinterpret_cast<const float4*>(partials + (2 * first_cta + 1) * block + at));
#pragma unroll 4
    for (int c = first_cta + 1; c <= last_cta; ++c) {
      const float4 v = __ldcg(reinterpret_cast<const float4*>(partials + 2 * c * block + at));
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    store_rows(y, shape, i / 16, first_row + (i % 16) * 4, sum);
  }
}

/// The copying warp: weights of the first stages at once, then, as x is complete and slots become free, the rest.
template <class Format, class L>
__device__ __forceinline__ void produce(const typename Format::Weights& w, const __nv_bfloat16* x, const Shape& shape,
                                        int begin, int end, std::uint32_t full, std::uint32_t empty,
                                        std::uint32_t stages) {
  const int lane = threadIdx.x % 32;
  const int stage_bytes = L::stage_bytes(shape.m);
  const auto copy_weights = [&](int tile, int unit, int slot) {
    if (lane == 0 || !kCopyEngine) {
      const int blocks = min(L::kRowWarps, Format::row_blocks(w) - tile * L::kRowWarps);
      expect_bytes(full + slot * 8, blocks * Format::kBlockBytes);
      Format::copy(w, shape.units, tile * L::kRowWarps, blocks, L::kRowWarps, unit, stages + slot * stage_bytes,
                   full + slot * 8);
      if (!kCopyEngine) arrive_after_copies(full + slot * 8);
    }
    __syncwarp();
  };
  // By lanes, not by the copy engine, which takes as long for 256 bytes as for many more. Columns past k become zeros.
  const auto copy_x = [&](int unit, int slot) {
    constexpr int kPieces = kUnitK / 8;
    for (int i = lane; i < shape.m * kPieces; i += 32) {
      const int token = i / kPieces, column = unit * kUnitK + i % kPieces * 8;
      const bool inside = column < shape.k;
      copy16_alone(stages + slot * stage_bytes + L::kWeightBytes + token * kTokenStride + i % kPieces * 16,
                   x + static_cast<std::size_t>(token) * shape.k + (inside ? column : 0), inside);
    }
    arrive_after_copies(full + slot * 8);
  };
  const int first = min(end - begin, shape.stages);
  int tile = begin / shape.units, unit = begin % shape.units;
  for (int i = 0; i < first; ++i) {
    copy_weights(tile, unit, i);
    if (++unit == shape.units) unit = 0, ++tile;
  }
  wait_for_previous();
  for (int i = 0, u = begin % shape.units; i < first; ++i) {
    copy_x(u, i);
    if (++u == shape.units) u = 0;
  }
  Slot slot;
  for (int at = begin + first; at < end; ++at) {
    wait_parity(empty + slot.index * 8, slot.parity);
    copy_weights(tile, unit, slot.index);
    copy_x(unit, slot.index);
    slot.advance(1, shape.stages);
    if (++unit == shape.units) unit = 0, ++tile;
  }
}

template <class Format, int kTokenTiles, int kRowWarps, int kSplit, int kResident>
__global__ void __launch_bounds__((kRowWarps * kSplit + 1) * 32, kResident)
    ring_linear(typename Format::Weights w, const __nv_bfloat16* __restrict__ x, __nv_bfloat16* __restrict__ y,
                Shape shape, unsigned* counters, float* partials) {
  using L = Layout<Format, kTokenTiles, kRowWarps, kSplit>;
  extern __shared__ __align__(128) unsigned char shared[];
  const std::uint32_t full = shared_address(shared), empty = full + kMaxStages * 8;
  int* flags = reinterpret_cast<int*>(shared + 2 * kMaxStages * 8);
  unsigned char* stages = shared + L::kHeadBytes;
  const int stage_bytes = L::stage_bytes(shape.m);
  float* sums = reinterpret_cast<float*>(stages + shape.stages * stage_bytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int begin = range_begin(shape.total, blockIdx.x, gridDim.x);
  const int end = range_begin(shape.total, blockIdx.x + 1, gridDim.x);
  let_next_start();
  if (warp == L::kWarps) {
    if (lane == 0) {
      for (int i = 0; i < shape.stages; ++i)
        init_barrier(full + i * 8, kWeightArrivals + 32), init_barrier(empty + i * 8, kRowWarps);
      fence_barriers();
    }
    __syncwarp();
  }
  __syncthreads();
  if (warp == L::kWarps) {
    produce<Format, L>(w, x, shape, begin, end, full, empty, shared_address(stages));
    return;
  }
  wait_for_previous();

  const int row_warp = warp / kSplit, split = warp % kSplit;
  const int g = lane / 4, t = lane % 4;
  int token_offset[kTokenTiles];
#pragma unroll
  for (int tt = 0; tt < kTokenTiles; ++tt)
    token_offset[tt] = L::kWeightBytes + min(tt * 8 + g, shape.m - 1) * kTokenStride + t * 16;
  const auto constants = Format::constants();
  float acc[4][kTokenTiles][4] = {};
  Slot slot;
  slot.advance(split, shape.stages);
  int at = begin + split;
  for (int tile = begin / shape.units; tile * shape.units < end; ++tile) {
    const int tile_end = min(end, (tile + 1) * shape.units);
    for (; at < tile_end; at += kSplit) {
      const unsigned char* stage = stages + slot.index * stage_bytes;
      wait_parity(full + slot.index * 8, slot.parity);
      Format::template multiply<kTokenTiles, kRowWarps>(stage, row_warp, lane, token_offset, constants, acc);
      __syncwarp();
      if (lane == 0) arrive(empty + slot.index * 8);
      slot.advance(kSplit, shape.stages);
    }
    finish_tile<L, kTokenTiles>(shape, tile, begin, end, acc, sums, flags, y, partials, counters);
  }
}

/// The grid and the workspace of one launch. Returns what the runtime said. kActive: CTAs per SM that work at the same
/// time; kResident of them fit, so that the next kernel's can start.
template <class Format, int kTokenTiles, int kRowWarps, int kSplit, int kActive, int kResident>
cudaError_t launch(const typename Format::Weights& w, const __nv_bfloat16* x, __nv_bfloat16* y, int n, int k, int m,
                   bool paired, void* workspace, bool programmatic, cudaStream_t stream) {
  using L = Layout<Format, kTokenTiles, kRowWarps, kSplit>;
  int device = 0, sms = 0, per_sm = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&per_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  if (error != cudaSuccess) return error;
  const int budget = per_sm / kResident - 1024 < 232448 ? per_sm / kResident - 1024 : 232448;
  Shape shape{n, k, m, (k + kUnitK - 1) / kUnitK, 0, 0, paired};
  shape.stages = (budget - L::shared_bytes(m, 0)) / L::stage_bytes(m);
  if (shape.stages > kMaxStages) shape.stages = kMaxStages;
  // Every slot belongs to one set of warps: one that had not waited for a slot's earlier phase would take that phase's
  // parity for its own, and read before the copy is there.
  shape.stages -= shape.stages % kSplit;
  if (shape.stages < 2) return cudaErrorInvalidConfiguration;
  const int bytes = L::shared_bytes(m, shape.stages);
  auto* kernel = ring_linear<Format, kTokenTiles, kRowWarps, kSplit, kResident>;
  error = allow_shared_memory(kernel, bytes);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100);
  if (error != cudaSuccess) return error;
  const int tiles = (n + L::kTileRows - 1) / L::kTileRows;
  shape.total = tiles * shape.units;
  if (tiles * L::kRowWarps > kCounters || shape.total >= 1 << 22) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config{};
  const int grid = sms * kActive < kMaxGrid ? sms * kActive : kMaxGrid;
  config.gridDim = dim3(static_cast<unsigned>(grid < shape.total ? grid : shape.total));
  config.blockDim = dim3(L::kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(bytes);
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

}  // namespace qwenbench::kernels::ring
