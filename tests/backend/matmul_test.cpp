#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backend/cpu/kernels.h"
#include "base/aligned.h"
#include "base/dtype.h"
#include "isa_list.h"

using namespace qwenbench;
using namespace qwenbench::backend::cpu;

namespace {

using Form = PackedMatrix::Form;

/// A random matrix in one of the packed forms, and its values in full precision.
struct RandomMatrix {
  PackedMatrix packed;
  AlignedVector<std::uint8_t> data, zeros;
  AlignedVector<std::uint16_t> scales;
  AlignedVector<float> block_scales;
  std::vector<std::int32_t> order;
  std::vector<double> values;  // [n, k]

  RandomMatrix(Form form, int n, int k, int group_size, bool f16_scale, bool with_order, std::mt19937& rng) {
    packed.form = form;
    packed.n = n, packed.k = k;
    const int panels = packed.panels();
    const std::size_t elements = static_cast<std::size_t>(panels) * k * kPanel;
    values.resize(static_cast<std::size_t>(n) * k);
    if (form == Form::kInt4 || form == Form::kE4M3) {
      packed.group_size = group_size;
      packed.groups = (k + group_size - 1) / group_size;
    }
    const std::size_t group_values = static_cast<std::size_t>(panels) * packed.groups * kPanel;
    std::normal_distribution<float> normal;
    if (with_order) {
      for (int i = 0; i < k; ++i) order.push_back(i / group_size);
      std::shuffle(order.begin(), order.end(), rng);
      packed.group_of_k = order.data();
    }
    if (form == Form::kInt4) {
      packed.scale_is_f16 = f16_scale;
      data.resize(elements / 2);
      for (auto& byte : data) byte = static_cast<std::uint8_t>(rng());
      for (std::size_t i = 0; i < group_values; ++i) {
        const float scale = 0.01f * std::fabs(normal(rng)) + 0.001f;
        scales.push_back(f16_scale ? float_to_fp16(scale) : float_to_bf16(scale));
        zeros.push_back(static_cast<std::uint8_t>(rng() % 16));
      }
    } else {
      data.resize(elements * (form == Form::kF32 ? 4 : form == Form::kE4M3 ? 1 : 2));
      for (std::size_t i = 0; i < elements; ++i) {
        const float value = normal(rng);
        const std::uint16_t half = form == Form::kF16 ? float_to_fp16(value) : float_to_bf16(value);
        if (form == Form::kF32)
          std::memcpy(data.data() + 4 * i, &value, 4);
        else if (form == Form::kE4M3)
          data[i] = float_to_e4m3(value);
        else
          std::memcpy(data.data() + 2 * i, &half, 2);
      }
      for (std::size_t i = 0; i < group_values; ++i) block_scales.push_back(0.1f * std::fabs(normal(rng)));
    }
    packed.data = data.data(), packed.scales = scales.data(), packed.zeros = zeros.data();
    packed.block_scales = block_scales.data();
    for (int row = 0; row < n; ++row)
      for (int column = 0; column < k; ++column)
        values[static_cast<std::size_t>(row) * k + column] = value_at(row, column);
  }

  double value_at(int row, int column) const {
    const int panel = row / kPanel, lane = row % kPanel, k = packed.k;
    const std::size_t at = (static_cast<std::size_t>(panel) * k + column) * kPanel + lane;
    const int group = order.empty() ? (packed.groups ? column / packed.group_size : 0) : order[column];
    const std::size_t group_at = (static_cast<std::size_t>(panel) * packed.groups + group) * kPanel + lane;
    switch (packed.form) {
      case Form::kF32: {
        float v;
        std::memcpy(&v, data.data() + 4 * at, 4);
        return v;
      }
      case Form::kF16:
        return fp16_to_float(reinterpret_cast<const std::uint16_t*>(data.data())[at]);
      case Form::kBF16:
        return bf16_to_float(reinterpret_cast<const std::uint16_t*>(data.data())[at]);
      case Form::kE4M3:
        return static_cast<double>(e4m3_to_float(data[at]) * block_scales[group_at]);
      case Form::kInt4: {
        const std::uint8_t byte = data[(static_cast<std::size_t>(panel) * k + column) * 8 + lane % 8];
        const int code = lane < 8 ? byte & 15 : byte >> 4;
        const float scale = packed.scale_is_f16 ? fp16_to_float(scales[group_at]) : bf16_to_float(scales[group_at]);
        const float product = static_cast<float>(code - zeros[group_at]) * scale;
        return packed.scale_is_f16 ? fp16_to_float(float_to_fp16(product)) : round_to_bf16(product);
      }
    }
    return 0;
  }
};

std::vector<float> multiply(const Kernels& kernels, const PackedMatrix& w, const std::vector<float>& x, int rows,
                            int split) {
  std::vector<float> y(static_cast<std::size_t>(rows) * w.n, std::numeric_limits<float>::quiet_NaN());
  AlignedVector<float> scratch(static_cast<std::size_t>(w.k) * kPanel);
  MatmulArgs args{&w, x.data(), w.k, rows, y.data(), w.n};
  args.scratch = scratch.data();
  for (int begin = 0; begin < w.panels(); begin += split)
    kernels.matmul(args, begin, std::min(begin + split, w.panels()));
  return y;
}

struct Case {
  Form form;
  int group_size;
  bool f16_scale, with_order;
};
const Case kCases[] = {{Form::kF32, 0, false, false},   {Form::kF16, 0, false, false},   {Form::kBF16, 0, false, false},
                       {Form::kInt4, 32, false, false}, {Form::kInt4, 128, true, false}, {Form::kInt4, 32, false, true},
                       {Form::kE4M3, 128, false, false}};

}  // namespace

TEST_CASE("matmul: every form, odd sizes, against double precision") {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  for (const Case& c : kCases) {
    for (const int n : {5, 16, 83}) {
      const int k = 256;
      RandomMatrix matrix(c.form, n, k, c.group_size, c.f16_scale, c.with_order, rng);
      for (const int rows : {1, 2, 3, 4, 5, 13}) {
        std::vector<float> x(static_cast<std::size_t>(rows) * k);
        for (auto& v : x) v = normal(rng);
        for (const Kernels* kernels : runnable_kernels()) {
          const std::vector<float> y = multiply(*kernels, matrix.packed, x, rows, 1000);
          for (int m = 0; m < rows; ++m) {
            for (int j = 0; j < n; ++j) {
              double sum = 0, size = 0;
              for (int i = 0; i < k; ++i) {
                const double term =
                    x[static_cast<std::size_t>(m) * k + i] * matrix.values[static_cast<std::size_t>(j) * k + i];
                sum += term, size += std::fabs(term);
              }
              const double error = std::fabs(y[static_cast<std::size_t>(m) * n + j] - sum);
              if (!(error <= 2e-6 * size))
                FAIL_CHECK(kernels->name << " form " << static_cast<int>(c.form) << " row " << m << " column " << j);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("matmul: a row's bits depend on neither batch, split of the panels nor instruction set") {
  std::mt19937 rng(11);
  std::normal_distribution<float> normal;
  for (const Case& c : kCases) {
    const int n = 83, k = 384, rows = 29;
    RandomMatrix matrix(c.form, n, k, c.group_size, c.f16_scale, c.with_order, rng);
    std::vector<float> x(static_cast<std::size_t>(rows) * k);
    for (auto& v : x) v = normal(rng);
    const std::vector<float> whole = multiply(*runnable_kernels()[0], matrix.packed, x, rows, 1000);
    for (const Kernels* kernels : runnable_kernels()) {
      for (const int batch : {1, 2, 3, 4, 5, 11, 29}) {
        for (int row = 0; row + batch <= rows; row += batch) {
          const std::vector<float> some(x.begin() + row * k, x.begin() + (row + batch) * k);
          const std::vector<float> y = multiply(*kernels, matrix.packed, some, batch, batch % 3 + 1);
          CHECK(std::memcmp(y.data(), whole.data() + row * n, y.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST_CASE("matmul: halves of K over two ranks add up to the same bits as one rank") {
  std::mt19937 rng(13);
  std::normal_distribution<float> normal;
  const int n = 32, k = 512, rows = 7;
  RandomMatrix matrix(Form::kBF16, n, k, 0, false, false, rng);
  std::vector<float> x(static_cast<std::size_t>(rows) * k);
  for (auto& v : x) v = normal(rng);
  const std::vector<float> whole = multiply(kernels(), matrix.packed, x, rows, 1000);
  std::vector<float> sum(whole.size(), 0);
  for (int rank = 0; rank < 2; ++rank) {
    PackedMatrix half = matrix.packed;
    half.k = k / 2;
    half.segments = kSegments / 2;
    AlignedVector<std::uint8_t> data;
    const std::size_t panel_bytes = static_cast<std::size_t>(half.k) * kPanel * 2;
    for (int panel = 0; panel < half.panels(); ++panel) {
      const auto* from = matrix.data.data() + (2 * panel + rank) * panel_bytes;
      data.insert(data.end(), from, from + panel_bytes);
    }
    half.data = data.data();
    std::vector<float> x_half;
    for (int m = 0; m < rows; ++m)
      x_half.insert(x_half.end(), x.begin() + m * k + rank * half.k, x.begin() + m * k + (rank + 1) * half.k);
    const std::vector<float> y = multiply(kernels(), half, x_half, rows, 1000);
    for (std::size_t i = 0; i < y.size(); ++i) sum[i] = rank == 0 ? y[i] : sum[i] + y[i];
  }
  CHECK(std::memcmp(sum.data(), whole.data(), sum.size() * sizeof(float)) == 0);
}

TEST_CASE("matmul: every finite e4m3 code is read as base/dtype.h says") {
  constexpr int k = 256;
  AlignedVector<std::uint8_t> codes(k * kPanel);
  for (int code = 0; code < k; ++code) {
    const bool nan = (code & 0x7f) == 0x7f;  // it would spoil the sums of all the others
    for (int lane = 0; lane < kPanel; ++lane) codes[code * kPanel + lane] = static_cast<std::uint8_t>(nan ? 0 : code);
  }
  const AlignedVector<float> scales(2 * kPanel, 1.0f);
  PackedMatrix matrix;
  matrix.form = Form::kE4M3;
  matrix.n = kPanel, matrix.k = k, matrix.group_size = 128, matrix.groups = 2;
  matrix.data = codes.data(), matrix.block_scales = scales.data();
  std::vector<float> one_hot(std::size_t{k} * k, 0.0f);
  for (int code = 0; code < k; ++code) one_hot[std::size_t{k} * code + code] = 1.0f;
  for (const Kernels* kernels : runnable_kernels()) {
    const std::vector<float> y = multiply(*kernels, matrix, one_hot, k, 1);
    for (int code = 0; code < k; ++code) {
      if ((code & 0x7f) == 0x7f) continue;
      CHECK(y[code * kPanel] == e4m3_to_float(static_cast<std::uint8_t>(code)));
    }
  }
}

TEST_CASE("matmul: a 4-bit weight is bf16((u - zero) * scale) for every significand of a scale, every code and zero") {
  constexpr int n = 256, group_size = 16, groups = 16,
                k = groups * group_size;          // group g: zero g; column c of it: code c
  const auto scale_of = [](int row, int group) {  // both signs, exponents -126 to 107
    const auto exponent = static_cast<std::uint16_t>(1 + 233 * group / 15);
    return static_cast<std::uint16_t>((row >= 128 ? 0x8000 : 0) | exponent << 7 | row % 128);
  };
  AlignedVector<std::uint8_t> codes(std::size_t{n} * k / 2), zeros(std::size_t{n} * groups);
  AlignedVector<std::uint16_t> scales(zeros.size());
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i / 8 % 16 * 0x11);
  for (int row = 0; row < n; ++row) {
    for (int group = 0; group < groups; ++group) {
      const std::size_t at = (static_cast<std::size_t>(row / kPanel) * groups + group) * kPanel + row % kPanel;
      scales[at] = scale_of(row, group);
      zeros[at] = static_cast<std::uint8_t>(group);
    }
  }
  PackedMatrix matrix;
  matrix.form = Form::kInt4;
  matrix.n = n, matrix.k = k, matrix.group_size = group_size, matrix.groups = groups;
  matrix.data = codes.data(), matrix.scales = scales.data(), matrix.zeros = zeros.data();
  for (const Kernels* kernels : runnable_kernels()) {
    for (int column = 0; column < k; ++column) {
      std::vector<float> one_hot(k, 0.0f);
      one_hot[column] = 1.0f;
      const std::vector<float> y = multiply(*kernels, matrix, one_hot, 1, n);
      const int group = column / group_size, code = column % group_size;
      for (int row = 0; row < n; ++row) {
        const float expected = round_to_bf16(static_cast<float>(code - group) * bf16_to_float(scale_of(row, group)));
        if (y[row] != expected) FAIL_CHECK(kernels->name << " code " << code << " zero " << group << " row " << row);
      }
    }
  }
}
