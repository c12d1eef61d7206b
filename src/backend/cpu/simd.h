// Sixteen fp32 lanes. Included only by the kernel sources, which are compiled once for each instruction set, each time
// into a namespace of its own: AVX-512, AVX2 + FMA, and portable C++. All three compute the same bits: every fused
// multiply-add is written out, and every reduction has one order. C headers, because of an inline function of a C++ one
// the linker might keep the AVX-512 copy for all.
#pragma once

#include <stdint.h>  // NOLINT(modernize-deprecated-headers)

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define QWENBENCH_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define QWENBENCH_ISA avx2
#else
#define QWENBENCH_ISA portable
#endif

namespace qwenbench::backend::cpu::QWENBENCH_ISA {

#define QB_INLINE inline __attribute__((always_inline))

constexpr int kLanes = 16;

// load_e4m3 below: a normal code is moved into place and its exponent raised by 120. A subnormal one, m * 2^-9, is
// read as 2^-6 (1 + m / 8), and 2^-6 taken off: a denormal float on the way would be slow, and make a
// cache with small values look slower than one with large.

// ---------------------------------------------------------------------------------------------------------------------
#if defined(__AVX512F__) && defined(__AVX512DQ__)

struct F32x16 {
  __m512 v;
};
QB_INLINE F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
QB_INLINE F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
QB_INLINE void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
QB_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
QB_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
QB_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
QB_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
QB_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
QB_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
QB_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
/// a < b ? yes : no, lane by lane.
QB_INLINE F32x16 select_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
QB_INLINE F32x16 round_even(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a * 2^n for whole n; the result must be a normal number.
QB_INLINE F32x16 scale_exponent(F32x16 a, F32x16 n) {
  return {
      _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_cvtps_epi32(n.v), 23)))};
}
QB_INLINE F32x16 load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
QB_INLINE F32x16 load_fp16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
QB_INLINE F32x16 load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
QB_INLINE F32x16 load_e4m3(const uint8_t* p) {
  const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi32(0x7f));
  const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(code, _mm512_set1_epi32(0x80)), 24);
  const __mmask16 subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(8));
  const __m512i shifted = _mm512_add_epi32(_mm512_slli_epi32(magnitude, 20), _mm512_set1_epi32(120 << 23));
  const __m512i raised = _mm512_mask_add_epi32(shifted, subnormal, shifted, _mm512_set1_epi32(1 << 23));
  const __m512 value =
      _mm512_mask_sub_ps(_mm512_castsi512_ps(raised), subnormal, _mm512_castsi512_ps(raised), _mm512_set1_ps(0x1p-6f));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7f));
  const __m512i bits = _mm512_mask_mov_epi32(_mm512_castps_si512(value), nan, _mm512_set1_epi32(0x7fc00000));
  return {_mm512_castsi512_ps(_mm512_or_si512(bits, sign))};
}
/// 16 codes in 8 bytes: byte b holds lane b (low nibble) and lane b + 8 (high nibble).
QB_INLINE F32x16 load_nibbles(const uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  const __m256i low = _mm256_and_si256(bytes, _mm256_set1_epi32(0xf)), high = _mm256_srli_epi32(bytes, 4);
  return {_mm512_cvtepi32_ps(_mm512_inserti32x8(_mm512_castsi256_si512(low), high, 1))};
}
QB_INLINE F32x16 round_bf16(F32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return {_mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(int(0xffff0000u))))};
}
QB_INLINE F32x16 round_fp16(F32x16 a) { return {_mm512_cvtph_ps(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT))}; }
QB_INLINE __m256 halves_added(F32x16 a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}
QB_INLINE __m256 halves_max(F32x16 a) {
  return _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}

// ---------------------------------------------------------------------------------------------------------------------
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

struct F32x16 {
  __m256 lo, hi;
};
QB_INLINE F32x16 set1(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
QB_INLINE F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QB_INLINE void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
QB_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
QB_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
QB_INLINE F32x16 select_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
QB_INLINE F32x16 round_even(F32x16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
QB_INLINE __m256 scale_exponent8(__m256 a, __m256 n) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
QB_INLINE F32x16 scale_exponent(F32x16 a, F32x16 n) {
  return {scale_exponent8(a.lo, n.lo), scale_exponent8(a.hi, n.hi)};
}
QB_INLINE __m256 load_bf16_8(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
QB_INLINE F32x16 load_bf16(const uint16_t* p) { return {load_bf16_8(p), load_bf16_8(p + 8)}; }
QB_INLINE F32x16 load_fp16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
QB_INLINE F32x16 load_u8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8))))};
}
QB_INLINE __m256 load_e4m3_8(const uint8_t* p) {
  const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  const __m256i magnitude = _mm256_and_si256(code, _mm256_set1_epi32(0x7f));
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(0x80)), 24);
  const __m256i subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), magnitude);
  const __m256i shifted = _mm256_add_epi32(_mm256_slli_epi32(magnitude, 20), _mm256_set1_epi32(120 << 23));
  const __m256i raised = _mm256_add_epi32(shifted, _mm256_and_si256(subnormal, _mm256_set1_epi32(1 << 23)));
  const __m256 offset = _mm256_and_ps(_mm256_castsi256_ps(subnormal), _mm256_set1_ps(0x1p-6f));
  const __m256 value = _mm256_sub_ps(_mm256_castsi256_ps(raised), offset);
  const __m256i nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f));
  const __m256i bits = _mm256_blendv_epi8(_mm256_castps_si256(value), _mm256_set1_epi32(0x7fc00000), nan);
  return _mm256_castsi256_ps(_mm256_or_si256(bits, sign));
}
QB_INLINE F32x16 load_e4m3(const uint8_t* p) { return {load_e4m3_8(p), load_e4m3_8(p + 8)}; }
QB_INLINE F32x16 load_nibbles(const uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  return {_mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(0xf))),
          _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4))};
}
QB_INLINE __m256 round_bf16_8(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(int(0xffff0000u))));
}
QB_INLINE F32x16 round_bf16(F32x16 a) { return {round_bf16_8(a.lo), round_bf16_8(a.hi)}; }
QB_INLINE F32x16 round_fp16(F32x16 a) {
  return {_mm256_cvtph_ps(_mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT)),
          _mm256_cvtph_ps(_mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT))};
}
QB_INLINE __m256 halves_added(F32x16 a) { return _mm256_add_ps(a.lo, a.hi); }
QB_INLINE __m256 halves_max(F32x16 a) { return _mm256_max_ps(a.lo, a.hi); }

// ---------------------------------------------------------------------------------------------------------------------
#else

struct F32x16 {
  float v[16];
};
template <class F>
QB_INLINE F32x16 each(F f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}
QB_INLINE float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
QB_INLINE uint32_t to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
QB_INLINE float float_of_fp16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return from_bits(sign | 0x7f800000u | (magnitude << 13));
  return from_bits(to_bits(from_bits(magnitude << 13) * 0x1p112f) | sign);
}
QB_INLINE float fp16_rounded(float x) {
  const uint32_t sign = to_bits(x) & 0x80000000u;
  const float magnitude = from_bits(to_bits(x) ^ sign);
  if (!(magnitude < 65520.0f)) return magnitude == magnitude ? from_bits(sign | 0x7f800000u) : x;
  // Adding and subtracting a power of two rounds to the spacing of fp16 at this magnitude (2^-24 below 2^-14).
  const uint32_t exponent = to_bits(magnitude) & 0x7f800000u;
  const float step = from_bits((exponent < 0x38800000u ? 0x38800000u : exponent) + (13u << 23));
  const float rounded = (magnitude + step) - step;
  return from_bits(to_bits(rounded) | sign);
}
QB_INLINE F32x16 set1(float x) {
  return each([=](int) { return x; });
}
QB_INLINE F32x16 load(const float* p) {
  return each([=](int i) { return p[i]; });
}
QB_INLINE void store(float* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
QB_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
QB_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
QB_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
QB_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
QB_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
QB_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
QB_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
QB_INLINE F32x16 select_less(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
QB_INLINE F32x16 round_even(F32x16 a) {
  return each([&](int i) { return __builtin_rintf(a.v[i]); });
}
QB_INLINE F32x16 scale_exponent(F32x16 a, F32x16 n) {
  return each([&](int i) { return from_bits(to_bits(a.v[i]) + (uint32_t(int32_t(n.v[i])) << 23)); });
}
QB_INLINE F32x16 load_bf16(const uint16_t* p) {
  return each([=](int i) { return from_bits(uint32_t(p[i]) << 16); });
}
QB_INLINE F32x16 load_fp16(const uint16_t* p) {
  return each([=](int i) { return float_of_fp16(p[i]); });
}
QB_INLINE F32x16 load_u8(const uint8_t* p) {
  return each([=](int i) { return float(p[i]); });
}
QB_INLINE F32x16 load_e4m3(const uint8_t* p) {
  return each([=](int i) {
    const uint32_t sign = uint32_t(p[i] & 0x80u) << 24, magnitude = p[i] & 0x7fu;
    const uint32_t shifted = (magnitude << 20) + (120u << 23);
    const float value = magnitude < 8 ? from_bits(shifted + (1u << 23)) - 0x1p-6f : from_bits(shifted);
    return from_bits((magnitude == 0x7f ? 0x7fc00000u : to_bits(value)) | sign);
  });
}
QB_INLINE F32x16 load_nibbles(const uint8_t* p) {
  return each([=](int i) { return i < 8 ? float(p[i] & 0xf) : float(p[i - 8] >> 4); });
}
QB_INLINE F32x16 round_bf16(F32x16 a) {
  return each([&](int i) {
    const uint32_t bits = to_bits(a.v[i]);
    return from_bits((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
  });
}
QB_INLINE F32x16 round_fp16(F32x16 a) {
  return each([&](int i) { return fp16_rounded(a.v[i]); });
}

#endif

// ---------------------------------------------------------------------------------------------------------------------
QB_INLINE F32x16 zero() { return set1(0.0f); }

/// The sum (the maximum) of all lanes, lanes i and i + 8 first, then i and i + 4, i + 2, i + 1.
QB_INLINE float reduce_add(F32x16 a) {
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  const __m256 eight = halves_added(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] += a.v[i + step];
  return a.v[0];
#endif
}
QB_INLINE float reduce_max(F32x16 a) {
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  const __m256 eight = halves_max(a);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  return a.v[0];
#endif
}

/// e^x to about 1 ulp for x <= 88, 0 below -87: x = n ln 2 + r, Taylor polynomial of e^r to r^7 (|r| <= 0.347).
QB_INLINE F32x16 exp(F32x16 x) {
  const F32x16 clamped = min(set1(88.0f), max(set1(-87.0f), x));  // this order of operands lets a NaN through
  const F32x16 n = round_even(mul(clamped, set1(1.44269504f)));
  const F32x16 r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), clamped));
  F32x16 p = set1(1.98412698e-4f);
  p = fma(p, r, set1(1.38888889e-3f));
  p = fma(p, r, set1(8.33333333e-3f));
  p = fma(p, r, set1(4.16666667e-2f));
  p = fma(p, r, set1(1.66666667e-1f));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return select_less(x, set1(-87.0f), zero(), scale_exponent(p, n));
}

/// x / (1 + e^-x).
QB_INLINE F32x16 silu(F32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

/// x (1 + tanh(u)) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
QB_INLINE F32x16 gelu_tanh(F32x16 x) {
  const F32x16 inner = mul(x, fma(mul(x, x), set1(0.044715f), set1(1.0f)));
  return div(x, add(set1(1.0f), exp(mul(inner, set1(-1.59576912f)))));
}

}  // namespace qwenbench::backend::cpu::QWENBENCH_ISA
