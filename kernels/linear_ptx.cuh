// The few machine instructions the linear kernels are made of.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/launch.h"
#include "kernels/shared_barrier.cuh"
#include "kernels/shared_copy.cuh"

namespace qwenbench::kernels {

/// c[16x8] += a[16x16] * b[16x8], bf16 with fp32 accumulation. Lane (g, t) = (lane / 4, lane % 4) holds
/// a: rows g, g+8 x columns 2t, 2t+1, then the same rows x columns 2t+8, 2t+9; b: rows 2t, 2t+1 and 2t+8, 2t+9 of
/// column g; c: rows g (c[0], c[1]) and g+8 (c[2], c[3]) of columns 2t, 2t+1.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// sm_90 copies whole runs by its copy engine, asked by one lane; before it the 32 lanes copy 16 bytes each.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
constexpr bool kCopyEngine = true;
constexpr int kWeightArrivals = 1;
#else
constexpr bool kCopyEngine = false;
constexpr int kWeightArrivals = 32;  // every lane after its copies
#endif

__device__ __forceinline__ uint4 load_shared_words(std::uint32_t shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(shared)
               : "memory");
  return v;
}
/// bytes (a multiple of 16) from global to shared memory: by the copy engine, or by `lanes` lanes of the warp in turn.
/// policy: of L2 (l2_policy.cuh), for the copy engine.
__device__ __forceinline__ void copy_bulk(std::uint32_t shared, const void* global, int bytes,
                                          [[maybe_unused]] std::uint32_t barrier, [[maybe_unused]] int lane,
                                          [[maybe_unused]] int lanes, [[maybe_unused]] std::uint64_t policy) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  for (int i = lane * 16; i < bytes; i += lanes * 16) copy16_alone(shared + i, static_cast<const char*>(global) + i);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

/// 16 bytes of x; not through the read-only path, because a kernel that started early must not read stale data.
__device__ __forceinline__ uint4 load16(const void* global) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global)
               : "memory");
  return v;
}

__device__ __forceinline__ std::uint32_t bf16x2_bits(__nv_bfloat162 v) {
  std::uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
__device__ __forceinline__ __nv_bfloat162 bits_bf16x2(std::uint32_t bits) {
  __nv_bfloat162 v;
  memcpy(&v, &bits, 4);
  return v;
}

}  // namespace qwenbench::kernels
