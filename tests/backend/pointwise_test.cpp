#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backend/cpu/kernels.h"
#include "base/dtype.h"
#include "isa_list.h"

using namespace qwenbench;
using namespace qwenbench::backend::cpu;

namespace {

std::vector<float> random_vector(int width, std::mt19937& rng, float spread = 1) {
  std::normal_distribution<float> normal(0.3f, spread);
  std::vector<float> x(static_cast<std::size_t>(width));
  for (auto& v : x) v = normal(rng);
  return x;
}

}  // namespace

TEST_CASE("norms: whole and ragged widths against double precision, the same bits everywhere") {
  std::mt19937 rng(1);
  for (const int width : {16, 64, 72, 100, 256}) {
    const auto x = random_vector(width, rng), weight = random_vector(width, rng), bias = random_vector(width, rng);
    double mean = 0, squares = 0, variance = 0;
    for (const float v : x) mean += v, squares += double{v} * v;
    mean /= width, squares /= width;
    for (const float v : x) variance += (v - mean) * (v - mean) / width;
    std::vector<float> first;
    for (const Kernels* kernels : runnable_kernels()) {
      std::vector<float> rms(x.size()), layer(x.size());
      kernels->rms_norm(x.data(), weight.data(), rms.data(), width, 1e-6f);
      kernels->layer_norm(x.data(), weight.data(), bias.data(), layer.data(), width, 1e-6f);
      for (int i = 0; i < width; ++i) {
        CHECK(rms[i] == doctest::Approx(x[i] / std::sqrt(squares + 1e-6) * weight[i]).epsilon(1e-5));
        CHECK(std::fabs(layer[i] - ((x[i] - mean) / std::sqrt(variance + 1e-6) * weight[i] + bias[i])) < 1e-5);
      }
      rms.insert(rms.end(), layer.begin(), layer.end());
      if (first.empty()) first = rms;
      CHECK(std::memcmp(first.data(), rms.data(), rms.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("swiglu: over the whole range of gates, the same bits everywhere") {
  std::vector<float> gate, up;
  for (float g = -200; g <= 200; g += 0.37f) gate.push_back(g), up.push_back(1.5f);
  std::vector<float> first;
  for (const Kernels* kernels : runnable_kernels()) {
    std::vector<float> out(gate.size());
    kernels->swiglu(gate.data(), up.data(), out.data(), static_cast<int>(gate.size()));
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * 1.5;
      CHECK(std::fabs(out[i] - expected) <= 4e-7 * std::fabs(expected) + 1e-35);
    }
    if (first.empty()) first = out;
    CHECK(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("encode: all bf16 inputs become the codes of base/dtype.h") {
  std::vector<float> x;
  for (int bits = 0; bits < 65536; ++bits) x.push_back(bf16_to_float(static_cast<std::uint16_t>(bits)));
  for (const Kernels* kernels : runnable_kernels()) {
    for (const float scale : {1.0f, 0.037f, 3.0f}) {
      std::vector<std::uint8_t> codes(x.size());
      kernels->encode(CacheForm::kE4M3, x.data(), scale, codes.data(), static_cast<int>(x.size()));
      int wrong = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::uint8_t expected = float_to_e4m3(x[i] / scale);
        const bool both_nan = (expected & 0x7f) == 0x7f && (codes[i] & 0x7f) == 0x7f;
        wrong += codes[i] != expected && !both_nan;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("rope: rotates pairs of the two halves") {
  std::mt19937 rng(2);
  for (const int width : {64, 72, 128}) {
    const auto x = random_vector(width, rng);
    std::vector<float> cos, sin;
    for (int i = 0; i < width / 2; ++i)
      cos.push_back(std::cos(0.1f * static_cast<float>(i))), sin.push_back(std::sin(0.1f * static_cast<float>(i)));
    for (const Kernels* kernels : runnable_kernels()) {
      auto y = x;
      kernels->rope(y.data(), cos.data(), sin.data(), width);
      for (int i = 0; i < width / 2; ++i) {
        CHECK(y[i] == doctest::Approx(x[i] * cos[i] - x[i + width / 2] * sin[i]).epsilon(1e-5));
        CHECK(y[i + width / 2] == doctest::Approx(x[i + width / 2] * cos[i] + x[i] * sin[i]).epsilon(1e-5));
      }
    }
  }
}
