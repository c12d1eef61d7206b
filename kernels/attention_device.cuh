// Device functions that the attention kernels share: matrix fragments, FP8 conversions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/shared_copy.cuh"

namespace qwenbench::kernels::device {

constexpr float kLog2E = 1.4426950408889634f;
constexpr unsigned kAllLanes = 0xffffffffu;
/// The running maximum before the first key: finite, so that differences of two of them are no NaN.
constexpr float kNoMaximum = -1e30f;
/// A running maximum stays as it is until a score exceeds it by this much (log2), since any reference will do that
/// keeps exp2(score - reference) in range: hardly any tile then rescales the sums.
constexpr float kMaximumSlack = 8.0f;

__device__ inline uint4 load_shared16(unsigned address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

__device__ inline void store_shared16(unsigned address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

/// Four 8x8 matrices of 16-bit elements; lanes 8i .. 8i+7 give the rows of matrix i.
__device__ inline void load_matrices(unsigned (&r)[4], unsigned row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}
__device__ inline void load_matrices_transposed(unsigned (&r)[4], unsigned row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}

/// Transposes an 8x8 matrix of 16-bit elements held as a fragment.
__device__ inline unsigned transpose(unsigned fragment) {
  unsigned out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(fragment));
  return out;
}

/// d += a * b, m16n8k16, fp32 sums. kHalf: fp16 operands, else bf16.
template <bool kHalf>
__device__ inline void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (kHalf)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned bits_of(__half2 x) { return *reinterpret_cast<unsigned*>(&x); }
__device__ inline unsigned bits_of(__nv_bfloat162 x) { return *reinterpret_cast<unsigned*>(&x); }

/// Two floats as 16-bit numbers, the first in the low half.
template <bool kHalf>
__device__ inline unsigned pack(float low, float high) {
  if constexpr (kHalf)
    return bits_of(__floats2half2_rn(low, high));
  else
    return bits_of(__floats2bfloat162_rn(low, high));
}

/// The two E4M3 codes in the low 16 bits as fp16 numbers, exactly.
__device__ inline unsigned halves_of_e4m3(unsigned codes) {
#if __CUDA_ARCH__ >= 890
  unsigned out;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(static_cast<unsigned short>(codes)));
  return out;
#else
  const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
  return static_cast<unsigned>(h.x) | static_cast<unsigned>(h.y) << 16;
#endif
}

/// The same as bf16 numbers, exactly too.
__device__ inline unsigned bf16_of_e4m3(unsigned codes) {
  const unsigned halves = halves_of_e4m3(codes);
  const float2 x = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  return pack<false>(x.x, x.y);
}

/// Two floats as E4M3 codes, rounded to nearest even and saturated, the first in the low byte.
__device__ inline unsigned e4m3_of(float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float bf16_low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float bf16_high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace qwenbench::kernels::device
