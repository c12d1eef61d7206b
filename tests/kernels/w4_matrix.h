// 4-bit matrices on the host and, packed, on the device.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/device_array.h"
#include "kernels/w4_linear.h"

namespace qwenbench::kernels::test {

using qwenbench::test::DeviceArray;
using qwenbench::test::has_device;
using Bf16 = __nv_bfloat16;

inline float rounded(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

inline std::vector<Bf16> random_bf16(std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<Bf16> values(count);
  for (Bf16& v : values) v = __float2bfloat16_rn(normal(random));
  return values;
}

inline float value(Bf16 v) { return __bfloat162float(v); }
inline float value(float v) { return v; }

/// Relative L2 distance; also that no element is far off (a wrong one among many right ones would drown in the norm).
template <class T>
void check_close(const std::vector<T>& y, const std::vector<double>& expected, double tolerance) {
  double difference = 0, norm = 0, worst = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double d = static_cast<double>(value(y[i])) - expected[i];
    difference += d * d;
    norm += expected[i] * expected[i];
    worst = std::max(worst, std::isfinite(d) ? std::abs(d) : 1e30);
  }
  const double rms = std::sqrt(norm / static_cast<double>(y.size()));
  CHECK(std::sqrt(difference / norm) <= tolerance);
  CHECK(worst <= 8 * tolerance * rms);
}

struct W4Matrix {
  W4Matrix(int rows, int columns, int group, std::mt19937& random)
      : n(rows), k(columns), group_size(group), count((k + group - 1) / group) {
    codes.resize(static_cast<std::size_t>(n) * k / 2);
    for (auto& c : codes) c = static_cast<std::uint8_t>(random());
    std::uniform_real_distribution<float> scale(0.002F, 0.02F);
    for (int i = 0; i < n * count; ++i) {
      scales.push_back(__bfloat16_as_ushort(__float2bfloat16_rn(scale(random))));
      zeros.push_back(static_cast<std::uint8_t>(random() % 16));
    }
    values.resize(static_cast<std::size_t>(n) * k);
    for (int r = 0; r < n; ++r)
      for (int c = 0; c < k; ++c) {
        const int byte = codes[(static_cast<std::size_t>(r) * k + c) / 2];
        const int u = c % 2 == 0 ? byte & 15 : byte >> 4;
        const std::size_t at = static_cast<std::size_t>(r) * count + c / group_size;
        values[static_cast<std::size_t>(r) * k + c] =
            rounded(static_cast<float>(u - zeros[at]) * __bfloat162float(__ushort_as_bfloat16(scales[at])));
      }
  }
  int n, k, group_size, count;
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint8_t> zeros;
  std::vector<float> values;
};

/// The matrix on the device, packed in two parts as a fused one would be.
struct PackedW4 {
  explicit PackedW4(const W4Matrix& matrix, bool paired = false)
      : codes(w4_codes_bytes(matrix.n, matrix.k)), groups(w4_groups_bytes(matrix.n, matrix.k, matrix.group_size)) {
    weights = {codes.get(), groups.get(), matrix.n, matrix.k, matrix.group_size, paired};
    const DeviceArray<std::uint8_t> c(matrix.codes), z(matrix.zeros);
    const DeviceArray<std::uint16_t> s(matrix.scales);
    const int first = matrix.n / 48 * 16;
    const auto at = static_cast<std::size_t>(first);
    if (first > 0) REQUIRE(w4_repack(c.get(), s.get(), z.get(), first, 0, weights, nullptr) == cudaSuccess);
    REQUIRE(w4_repack(c.get() + at * matrix.k / 2, s.get() + at * matrix.count, z.get() + at * matrix.count,
                      matrix.n - first, first, weights, nullptr) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }
  DeviceArray<std::uint8_t> codes, groups;
  W4Weights weights;
};

}  // namespace qwenbench::kernels::test
