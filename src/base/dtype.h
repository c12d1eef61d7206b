// Number formats of checkpoints and caches, and their conversions. Every conversion is exact or rounds to nearest even,
// so that each backend computes the same bits.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qwenbench {

enum class DType { kF32, kF16, kBF16, kF8E4M3, kI64, kI32, kI16, kI8, kU8, kBool, kF64 };

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// The name in a safetensors header ("BF16", "F8_E4M3", ...).
std::string_view safetensors_name(DType dtype);

inline float bf16_to_float(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

/// Round to nearest even; a NaN stays a (quiet) NaN.
inline std::uint16_t float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float round_to_bf16(float value) { return bf16_to_float(float_to_bf16(value)); }

float fp16_to_float(std::uint16_t bits);
std::uint16_t float_to_fp16(float value);

/// FP8 E4M3 "fn": largest 448, smallest normal 2^-6, subnormals to 2^-9, no infinities, NaN = 0x7f / 0xff.
inline constexpr float kE4M3Max = 448.0f;
float e4m3_to_float(std::uint8_t code);

/// Round to nearest even, saturating at +-448 (CUDA's __NV_SATFINITE); NaN stays NaN.
std::uint8_t float_to_e4m3(float value);

}  // namespace qwenbench
