// Compiled once for each instruction set (src/backend/CMakeLists.txt); simd.h names the namespace after it.
#include <math.h>  // NOLINT(modernize-deprecated-headers)

#include <new>

#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd.h"

namespace qwenbench::backend::cpu::QWENBENCH_ISA {
namespace {

/// sum of f(i) over whole vectors, then the rest as one vector padded with zeros.
template <class F>
QB_INLINE F32x16 padded_load(const F* x, int i, int width) {
  if (i + kLanes <= width) return load(x + i);
  float lanes[kLanes] = {};
  for (int j = i; j < width; ++j) lanes[j - i] = x[j];
  return load(lanes);
}

QB_INLINE void padded_store(float* x, int i, int width, F32x16 value) {
  if (i + kLanes <= width) return store(x + i, value);
  float lanes[kLanes];
  store(lanes, value);
  for (int j = i; j < width; ++j) x[j] = lanes[j - i];
}

void rms_norm(const float* x, const float* weight, float* out, int width, float eps) {
  F32x16 squares = zero();
  for (int i = 0; i < width; i += kLanes) {
    const F32x16 v = padded_load(x, i, width);
    squares = fma(v, v, squares);
  }
  const float factor = 1.0f / sqrtf(reduce_add(squares) / static_cast<float>(width) + eps);
  for (int i = 0; i < width; i += kLanes) {
    const F32x16 normed = mul(padded_load(x, i, width), set1(factor));
    padded_store(out, i, width, mul(normed, padded_load(weight, i, width)));
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float* out, int width, float eps) {
  F32x16 sum = zero();
  for (int i = 0; i < width; i += kLanes) sum = add(sum, padded_load(x, i, width));
  const float mean = reduce_add(sum) / static_cast<float>(width);
  F32x16 squares = zero();
  for (int i = 0; i < width; i += kLanes) {
    F32x16 v = sub(padded_load(x, i, width), set1(mean));
    if (i + kLanes > width) {  // the padding is no data: its distance from the mean must not count
      float lanes[kLanes];
      store(lanes, v);
      for (int j = width - i; j < kLanes; ++j) lanes[j] = 0;
      v = load(lanes);
    }
    squares = fma(v, v, squares);
  }
  const float factor = 1.0f / sqrtf(reduce_add(squares) / static_cast<float>(width) + eps);
  for (int i = 0; i < width; i += kLanes) {
    const F32x16 normed = mul(sub(padded_load(x, i, width), set1(mean)), set1(factor));
    padded_store(out, i, width, fma(normed, padded_load(weight, i, width), padded_load(bias, i, width)));
  }
}

void swiglu(const float* gate, const float* up, float* out, int width) {
  for (int i = 0; i < width; i += kLanes)
    padded_store(out, i, width, mul(silu(padded_load(gate, i, width)), padded_load(up, i, width)));
}

void rope(float* x, const float* cos, const float* sin, int width) {
  const int half = width / 2;
  for (int i = 0; i < half; i += kLanes) {
    const F32x16 c = padded_load(cos, i, half), s = padded_load(sin, i, half);
    const F32x16 first = padded_load(x, i, half), second = padded_load(x + half, i, half);
    padded_store(x, i, half, sub(mul(first, c), mul(second, s)));
    padded_store(x + half, i, half, add(mul(second, c), mul(first, s)));
  }
}

// The two encoders are branch-free scalar code that the compiler vectorises; base/dtype.h defines what they compute.

QB_INLINE uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
QB_INLINE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

QB_INLINE uint32_t bf16_bits(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

QB_INLINE uint32_t e4m3_bits(float x) {
  const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
  const uint32_t subnormal = bits_of(float_of(magnitude) + 24576.0f) & 0xfu;  // below 2^-6: a multiple of 2^-9
  const uint32_t normal = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
  uint32_t code = magnitude < 0x3c800000u ? subnormal : normal;
  code = magnitude >= 0x43e00000u ? 0x7eu : code;
  code = magnitude > 0x7f800000u ? 0x7fu : code;
  return code | ((bits >> 24) & 0x80u);
}

void encode(CacheForm form, const float* x, float scale, uint8_t* out, int width) {
  if (form == CacheForm::kF32) {
    for (int i = 0; i < width; ++i) reinterpret_cast<float*>(out)[i] = x[i];
  } else if (form == CacheForm::kBF16) {
    for (int i = 0; i < width; ++i) reinterpret_cast<uint16_t*>(out)[i] = static_cast<uint16_t>(bf16_bits(x[i]));
  } else {
    for (int i = 0; i < width; ++i) out[i] = static_cast<uint8_t>(e4m3_bits(float_of(bf16_bits(x[i]) << 16) / scale));
  }
}

}  // namespace

#define QB_TEXT2(x) #x
#define QB_TEXT(x) QB_TEXT2(x)
extern const Kernels table;
const Kernels table = {QB_TEXT(QWENBENCH_ISA), matmul, attention, rms_norm, layer_norm, swiglu, encode, rope};

}  // namespace qwenbench::backend::cpu::QWENBENCH_ISA
