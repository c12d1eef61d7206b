#include <cmath>

#include "kernels/flash_attention.cuh"
#include "kernels/launch.h"
#include "kernels/vision_attention.h"
#include "kernels/vision_attention_wgmma.h"

namespace qwenbench::kernels {
namespace {

using namespace device;

struct Picture {
  const __nv_bfloat16* qkv;
  __nv_bfloat16* out;
  int patches, heads, head_dim;
  float factor;  // log2 e / sqrt(head_dim)
};

/// Copies rows [first, first + kRows) of a head's q, k or v; rows beyond the picture become zero.
template <int kOctets, int kRows>
__device__ inline void copy_rows(const Picture& p, const __nv_bfloat16* from, unsigned to, int first) {
  const std::int64_t stride = 3LL * p.heads * p.head_dim;
  const int octets = p.head_dim / 8;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kOctets; i += kFlashThreads) {
    const int row = i / kOctets, octet = i % kOctets;
    const bool valid = first + row < p.patches && octet < octets;
    copy16(to + row * FlashTile<kOctets>::kRowBytes + octet * 16,
           from + (valid ? (first + row) * stride + octet * 8 : 0), valid);
  }
}

template <int kOctets>
__global__ void __launch_bounds__(kFlashThreads, 2) vision_attention_kernel(const __grid_constant__ Picture p) {
  using Tile = FlashTile<kOctets>;
  extern __shared__ __align__(128) char memory[];
  const unsigned shared = shared_address(memory);
  const int head = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.x) * kFlashRows;
  const __nv_bfloat16* q = p.qkv + head * p.head_dim;
  const __nv_bfloat16* k = q + p.heads * p.head_dim;
  const __nv_bfloat16* v = k + p.heads * p.head_dim;
  if constexpr (kOctets % 2 == 1) {  // the padding that products read
    for (int row = static_cast<int>(threadIdx.x); row < kFlashRows + 2 * kFlashKeys; row += kFlashThreads)
      *reinterpret_cast<uint4*>(memory + row * Tile::kRowBytes + kOctets * 16) = make_uint4(0, 0, 0, 0);
  }
  wait_for_previous();
  let_next_start();
  copy_rows<kOctets, kFlashRows>(p, q, shared, first);
  Tile tile;
  pass_over_keys(
      tile, shared, (p.patches + kFlashKeys - 1) / kFlashKeys, p.factor, p.patches, [&](int) { return p.patches - 1; },
      [&](int j) { copy_rows<kOctets, kFlashKeys>(p, k, shared + Tile::kQueryBytes, j * kFlashKeys); },
      [&](int j) {
        copy_rows<kOctets, kFlashKeys>(p, v, shared + Tile::kQueryBytes + Tile::kKeyBytes, j * kFlashKeys);
      });

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  auto* rows = reinterpret_cast<__nv_bfloat16*>(memory) + warp * 32 * Tile::kStride;
  tile.finish(rows, 1.0f);
  const int octets = p.head_dim / 8;
  for (int i = lane; i < 32 * kOctets; i += 32) {
    const int row = i / kOctets, octet = i % kOctets, patch = first + warp * 32 + row;
    if (patch >= p.patches || octet >= octets) continue;
    *reinterpret_cast<uint4*>(p.out + (static_cast<std::int64_t>(patch) * p.heads + head) * p.head_dim + octet * 8) =
        *reinterpret_cast<const uint4*>(rows + row * Tile::kStride + octet * 8);
  }
}

template <int kOctets>
cudaError_t start(const Picture& picture, cudaStream_t stream) {
  const auto kernel = vision_attention_kernel<kOctets>;
  constexpr int kBytes = FlashTile<kOctets>::kBytes;
  const cudaError_t error = allow_shared_memory(kernel, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid((picture.patches + kFlashRows - 1) / kFlashRows, picture.heads);
  return launch(kernel, grid, kFlashThreads, kBytes, stream, picture);
}

}  // namespace

cudaError_t vision_attention(const void* qkv, void* out, int patches, int heads, int head_dim, cudaStream_t stream,
                             bool use_wgmma) {
  if (head_dim % 8 != 0 || head_dim < 8 || head_dim > 128) return cudaErrorInvalidValue;
  if (patches == 0) return cudaSuccess;
  if (use_wgmma && vision_attention_wgmma_runs())
    return vision_attention_wgmma(qkv, out, patches, heads, head_dim, stream);
  const Picture picture = {
      static_cast<const __nv_bfloat16*>(qkv),          static_cast<__nv_bfloat16*>(out), patches, heads, head_dim,
      kLog2E / std::sqrt(static_cast<float>(head_dim))};
  if (head_dim <= 32) return start<4>(picture, stream);
  if (head_dim <= 64) return start<8>(picture, stream);
  if (head_dim <= 72) return start<9>(picture, stream);
  if (head_dim <= 96) return start<12>(picture, stream);
  return start<16>(picture, stream);
}

}  // namespace qwenbench::kernels
