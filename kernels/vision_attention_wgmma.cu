#include <cmath>

#include "kernels/tensor_map.h"
#include "kernels/vision_attention_wgmma.h"
#include "kernels/wgmma_attention.cuh"
#include "kernels/wgmma_launch.h"

namespace qwenbench::kernels {
namespace {

using namespace device;

struct Picture {
  CUtensorMap qkv;  // [patches][q heads, k heads, v heads][head_dim]
  __nv_bfloat16* out;
  int patches, heads, head_dim;
  float factor;      // log2 e / sqrt(head_dim)
  int items, tiles;  // 128 rows of one head each, the heads running fastest; 128 keys each
};

/// One thread fills all rings. What lies beyond a head or the picture arrives as zeros.
template <int kDim>
struct Producer {
  const Picture& picture;
  WgRings<kDim> rings;

  __device__ void copy(const Ring<kDim>& ring, int use, int head, int row) const {
    using Tile = WgTile<kDim>;
    ring.wait_empty(use);
    expect_bytes(ring.full(use), Tile::kBytes);
    for (int half = 0; half < Tile::kHalves; ++half)
      copy_box(ring.slot(use) + half * Tile::kHalfBytes, picture.qkv, half * 64, head, row, ring.full(use));
  }

  __device__ void run() const {
    const Items items = {picture.items};
    int query_use = 0, use = 0;
    for (int round = 0; round < items.rounds(); ++round) {
      const int item = items.at(round), head = item % picture.heads;
      if (item >= items.count) continue;
      copy(rings.queries, query_use++, head, item / picture.heads * kWgRows);
      copy_tiles(
          picture.tiles, [&](int j) { copy(rings.keys, use + j, picture.heads + head, j * kWgKeys); },
          [&](int j) { copy(rings.values, use + j, 2 * picture.heads + head, j * kWgKeys); });
      use += picture.tiles;
    }
  }
};

/// Writes this warp's 16 rows of the output by way of its queries' place in shared memory.
template <int kDim>
__device__ inline void store_rows(const Picture& picture, int first_row, int head, const WgAttention<kDim>& rows,
                                  char* queries) {
  using Tile = WgTile<kDim>;
  const int warp = (static_cast<int>(threadIdx.x) - kProducers) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  sync_threads(kFirstRows + consumer_group(), 128);  // the warpgroup reads its queries no more
  char* staged = queries + warp * 16 * 128;
  rows.write(staged, 1.0f);
  __syncwarp();
  for (int i = lane; i < 16 * Tile::kOctets; i += 32) {
    const int row = i / Tile::kOctets, octet = i % Tile::kOctets, patch = first_row + warp * 16 + row;
    if (patch >= picture.patches || octet * 8 >= picture.head_dim) continue;
    const std::int64_t at = static_cast<std::int64_t>(patch) * picture.heads + head;
    *reinterpret_cast<uint4*>(picture.out + at * picture.head_dim + octet * 8) =
        *reinterpret_cast<const uint4*>(staged + octet / 8 * Tile::kHalfBytes + swizzled(row, octet % 8));
  }
  fence_shared();  // the copy engine writes here next
}

template <int kDim>
__device__ inline void consume(const Picture& picture, const WgRings<kDim>& rings, char* memory) {
  const int group = consumer_group(), tiles = picture.tiles;
  const int last[2] = {picture.patches - 1, picture.patches - 1};
  const Items items = {picture.items};
  WgAttention<kDim> rows;
  if (group == 1) pass_turn(group);
  for (int round = 0, use = 0; round < items.rounds(); ++round) {
    const int item = items.at(round);
    if (item >= items.count) continue;
    rings.queries.wait_full(use);
    const unsigned queries = rings.queries.slot(use);
    attend<false>(
        rows, rings, queries + group * 64 * 128, use * tiles, tiles, picture.factor, 1.0f,
        [&](int j) {
          if ((j + 1) * kWgKeys > picture.patches) rows.mask(j * kWgKeys, last);
        },
        [](unsigned) {});
    store_rows(picture, item / picture.heads * kWgRows, item % picture.heads, rows,
               memory + (queries - rings.queries.slots));
    rings.queries.release(use++);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kWgThreads, 1)
    vision_attention_wgmma_kernel(const __grid_constant__ Picture picture) {
#if QWENBENCH_WARPGROUP_PRODUCTS
  extern __shared__ __align__(1024) char memory[];
  const WgRings<kDim> rings(shared_address(memory));
  if (threadIdx.x == 0) rings.init(1);
  __syncthreads();
  wait_for_previous();
  let_next_start();
  if (threadIdx.x < kProducers) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) Producer<kDim>{picture, rings}.run();
  } else {
    take_registers<kConsumerRegisters>();
    consume<kDim>(picture, rings, memory);
  }
#endif
}

template <int kDim>
cudaError_t start(const Picture& picture, cudaStream_t stream) {
  return launch_wgmma(vision_attention_wgmma_kernel<kDim>, picture.items, kWgThreads, WgRings<kDim>::kBytes, stream,
                      picture);
}

}  // namespace

bool vision_attention_wgmma_runs() { return has_wgmma_code(vision_attention_wgmma_kernel<64>); }

cudaError_t vision_attention_wgmma(const void* qkv, void* out, int patches, int heads, int head_dim,
                                   cudaStream_t stream) {
  Picture picture = {{},
                     static_cast<__nv_bfloat16*>(out),
                     patches,
                     heads,
                     head_dim,
                     kLog2E / std::sqrt(static_cast<float>(head_dim)),
                     ceil_div(patches, kWgRows) * heads,
                     ceil_div(patches, kWgKeys)};
  const auto dim = static_cast<std::uint64_t>(head_dim), all_heads = 3 * static_cast<std::uint64_t>(heads);
  const cudaError_t error = make_tensor_map(
      {qkv, 3, {dim, all_heads, static_cast<std::uint64_t>(patches)}, {dim * 2, all_heads * dim * 2}, {64, 1, kWgKeys}},
      picture.qkv);
  if (error != cudaSuccess) return error;
  if (head_dim <= 64) return start<64>(picture, stream);
  if (head_dim <= 72) return start<72>(picture, stream);
  return start<128>(picture, stream);
}

}  // namespace qwenbench::kernels
