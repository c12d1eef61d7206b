#include "base/dtype.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <ios>
#include <limits>

using namespace qwenbench;

namespace {

/// The E4M3 code nearest to a finite value, by search over the format's definition: ties to the even code.
std::uint8_t nearest_e4m3(double value) {
  const double magnitude = std::min(std::fabs(value), 448.0);
  int best = 0;
  double best_distance = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 0x7f; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    const double decoded = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const double distance = std::fabs(decoded - magnitude);
    if (distance < best_distance || (distance == best_distance && code % 2 == 0)) best = code, best_distance = distance;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

}  // namespace

TEST_CASE("e4m3: all 256 codes survive a round trip") {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_float(static_cast<std::uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      CHECK(std::isnan(value));
      CHECK((float_to_e4m3(value) & 0x7f) == 0x7f);
    } else {
      CHECK(float_to_e4m3(value) == code);
    }
  }
}

TEST_CASE("e4m3: all 65,536 bf16 inputs round to the nearest code") {
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      CHECK((float_to_e4m3(value) & 0x7f) == 0x7f);
    } else if (float_to_e4m3(value) != nearest_e4m3(value)) {
      FAIL_CHECK("bf16 bits " << bits << " value " << value);
    }
  }
}

TEST_CASE("e4m3: codes and their first bf16 numbers are those of ml_dtypes") {
  std::ifstream file("base/data/e4m3.txt");
  REQUIRE(file);
  file >> std::hex;
  std::uint32_t expected = 0;
  for (int code = 0; code < 127; ++code) {
    file >> expected;
    CHECK(std::bit_cast<std::uint32_t>(e4m3_to_float(static_cast<std::uint8_t>(code))) == expected);
  }
  for (int code = 0; code < 127; ++code) {
    file >> expected;
    const auto code_of = [](std::uint32_t bits) {
      return float_to_e4m3(bf16_to_float(static_cast<std::uint16_t>(bits)));
    };
    CHECK(code_of(expected) == code);
    CHECK(code_of(expected | 0x8000) == (code | 0x80));
    if (code > 0) CHECK(code_of(expected - 1) == code - 1);
  }
  CHECK(file);
}

TEST_CASE("bf16: rounds to nearest even and keeps NaN") {
  CHECK(float_to_bf16(1.0f) == 0x3f80);
  CHECK(float_to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // tie to even
  CHECK(float_to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);
  CHECK(float_to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("fp16: every code survives a round trip") {
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = fp16_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(value))
      CHECK(std::isnan(fp16_to_float(float_to_fp16(value))));
    else if (float_to_fp16(value) != bits)
      FAIL_CHECK("fp16 bits " << bits);
  }
  CHECK(float_to_fp16(65519.0f) == 0x7bff);
  CHECK(float_to_fp16(65520.0f) == 0x7c00);
}
