// Norms, activations, copies by index and reductions of logits on a GPU, against sums on the host in double.
#include <cuda_bf16.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/dtype.h"
#include "kernels/activation.h"
#include "kernels/add_norm.h"
#include "kernels/device_array.h"
#include "kernels/effort.h"
#include "kernels/embedding.h"
#include "kernels/logits.h"
#include "kernels/position_embedding.h"
#include "kernels/read_bandwidth.h"

using namespace qwenbench;
using test::DeviceArray;

namespace {

using Bits = std::uint16_t;  // of a bf16

std::mt19937& random_engine() {
  static std::mt19937 engine(20);
  return engine;
}

int random_int(int low, int high) { return std::uniform_int_distribution(low, high)(random_engine()); }

/// Values that bf16 holds exactly.
std::vector<Bits> random_bf16(std::size_t count, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<Bits> values(count);
  for (Bits& value : values) value = float_to_bf16(normal(random_engine()));
  return values;
}

std::vector<float> random_floats(std::size_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random_engine());
  return values;
}

__nv_bfloat16* bf16(const DeviceArray<Bits>& array) { return reinterpret_cast<__nv_bfloat16*>(array.get()); }

void check_near(const std::vector<float>& actual, const std::vector<double>& expected, double tolerance) {
  REQUIRE(actual.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]) / (std::abs(expected[i]) + 0.02);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
  }
  CHECK(worst <= tolerance);
}

/// One rounding to bf16, and what fp32 arithmetic adds before it.
void check_near(const std::vector<Bits>& actual, const std::vector<double>& expected) {
  std::vector<float> values(actual.size());
  std::transform(actual.begin(), actual.end(), values.begin(), bf16_to_float);
  check_near(values, expected, 0x1p-7);
}

struct NormCase {
  int rows, width;
  bool partial, bias, features, layer_norm, begins = false;
};

void check_add_norm(const NormCase& c) {
  CAPTURE(c.rows);
  CAPTURE(c.width);
  const auto count = static_cast<std::size_t>(c.rows) * c.width;
  const std::size_t feature_rows = 5;
  const auto residual = c.begins ? std::vector<float>(count, std::numeric_limits<float>::quiet_NaN())  // is not read
                                 : random_floats(count, 2);
  const auto partial = random_bf16(count), weight = random_bf16(c.width), bias = random_bf16(c.width),
             norm_bias = random_bf16(c.width), features = random_bf16(feature_rows * c.width);
  std::vector<int> feature_of_row(static_cast<std::size_t>(c.rows));
  for (int& feature : feature_of_row) feature = random_int(-1, static_cast<int>(feature_rows) - 1);
  const DeviceArray<float> d_residual(residual);
  const DeviceArray<Bits> d_partial(partial), d_weight(weight), d_bias(bias), d_norm_bias(norm_bias),
      d_features(features), d_out(count);
  const DeviceArray<int> d_feature_of_row(feature_of_row);
  kernels::AddNorm args;
  args.residual = d_residual.get();
  args.begins = c.begins;
  if (c.partial) args.partial = bf16(d_partial);
  if (c.bias) args.bias = bf16(d_bias);
  if (c.features) args.features = bf16(d_features);
  if (c.features) args.feature_of_row = d_feature_of_row.get();
  args.out = bf16(d_out);
  args.weight = bf16(d_weight);
  if (c.layer_norm) args.norm_bias = bf16(d_norm_bias);
  args.eps = 1e-6f;
  args.rows = c.rows;
  args.width = c.width;
  REQUIRE(kernels::add_norm(args, nullptr) == cudaSuccess);

  const auto summed = d_residual.download();
  std::vector<double> sums(count), normed(count);
  for (int row = 0; row < c.rows; ++row) {
    double mean = 0, square = 0;
    const std::size_t base = static_cast<std::size_t>(row) * c.width;
    for (int i = 0; i < c.width; ++i) {
      double x = c.begins ? 0.0f : residual[base + i];
      if (c.partial) x += bf16_to_float(partial[base + i]);
      if (c.partial && c.bias) x += bf16_to_float(bias[i]);
      const int feature = feature_of_row[row];
      if (c.partial && c.features && feature >= 0)
        x += bf16_to_float(features[static_cast<std::size_t>(feature) * c.width + i]);
      sums[base + i] = x;
      mean += x / c.width;
    }
    if (!c.layer_norm) mean = 0;
    const auto centred = [&](int i) { return sums[base + i] - mean; };
    for (int i = 0; i < c.width; ++i) square += centred(i) * centred(i) / c.width;
    for (int i = 0; i < c.width; ++i)
      normed[base + i] = centred(i) / std::sqrt(square + 1e-6) * bf16_to_float(weight[i]) +
                         (c.layer_norm ? bf16_to_float(norm_bias[i]) : 0.0f);
  }
  check_near(summed, sums, 0x1p-12);  // terms may cancel; in bf16 2^-9 would be left
  check_near(d_out.download(), normed);
}

double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double gelu_erf(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

}  // namespace

TEST_CASE("add_norm: residual, bias, features, RMSNorm and LayerNorm") {
  if (!test::has_device()) return;
  for (const int width : {8, 96, 128, 1152, 4608, 5120, 8200, 18432}) {
    if (test::is_too_large(40 * width)) continue;
    for (const bool layer_norm : {false, true}) {
      check_add_norm({random_int(1, 40), width, false, false, false, layer_norm});
      check_add_norm({random_int(1, 40), width, true, random_int(0, 1) == 1, random_int(0, 1) == 1, layer_norm});
      check_add_norm({1, width, true, true, true, layer_norm});
      check_add_norm({random_int(1, 40), width, true, false, false, layer_norm, true});
    }
  }
  const DeviceArray<float> x(64);
  kernels::AddNorm odd;
  odd.residual = x.get();
  odd.rows = 1;
  odd.width = 12;
  CHECK(kernels::add_norm(odd, nullptr) == cudaErrorInvalidValue);
}

TEST_CASE("SwiGLU, and bias with GELU") {
  if (!test::has_device()) return;
  for (const int width : {8, 176, 2560, 25600}) {
    if (test::is_too_large(70 * width)) continue;
    const int rows = random_int(1, 70);
    const auto count = static_cast<std::size_t>(rows) * width;
    const auto in = random_bf16(2 * count, 3);
    const DeviceArray<Bits> d_in(in), d_out(count);
    REQUIRE(kernels::swiglu(bf16(d_in), rows, width, bf16(d_out), nullptr) == cudaSuccess);
    std::vector<double> expected(count);
    for (int row = 0; row < rows; ++row)
      for (int i = 0; i < width; ++i) {
        const double gate = bf16_to_float(in[2 * static_cast<std::size_t>(row) * width + i]);
        const double up = bf16_to_float(in[2 * static_cast<std::size_t>(row) * width + width + i]);
        expected[static_cast<std::size_t>(row) * width + i] = gate / (1 + std::exp(-gate)) * up;
      }
    check_near(d_out.download(), expected);

    for (const auto activation :
         {kernels::Activation::kNone, kernels::Activation::kGeluTanh, kernels::Activation::kGeluErf}) {
      const auto x = random_bf16(count, 2), bias = random_bf16(width);
      const DeviceArray<Bits> d_x(x), d_bias(bias);
      const bool with_bias = random_int(0, 3) > 0;
      REQUIRE(kernels::bias_activation(bf16(d_x), with_bias ? bf16(d_bias) : nullptr, activation, rows, width,
                                       nullptr) == cudaSuccess);
      for (std::size_t i = 0; i < count; ++i) {
        const double sum = bf16_to_float(x[i]) + (with_bias ? bf16_to_float(bias[i % width]) : 0.0f);
        expected[i] = activation == kernels::Activation::kNone       ? sum
                      : activation == kernels::Activation::kGeluTanh ? gelu_tanh(sum)
                                                                     : gelu_erf(sum);
      }
      check_near(d_x.download(), expected);
    }
  }
}

TEST_CASE("embedding rows of one rank, and rows by index") {
  if (!test::has_device()) return;
  for (const int width : {8, 96, 5120}) {
    const int first = 100, count = 50, tokens = random_int(1, 90);
    const auto table = random_bf16(static_cast<std::size_t>(count) * width);
    std::vector<int> ids(static_cast<std::size_t>(tokens));
    for (int& id : ids) id = random_int(90, 160);
    const DeviceArray<Bits> d_table(table), d_out(static_cast<std::size_t>(tokens) * width);
    const DeviceArray<int> d_ids(ids);
    REQUIRE(kernels::embed(d_ids.get(), tokens, bf16(d_table), first, count, width, bf16(d_out), nullptr) ==
            cudaSuccess);
    const auto out = d_out.download();
    for (int t = 0; t < tokens; ++t) {
      const bool inside = ids[t] >= first && ids[t] < first + count;
      for (int i = 0; i < width; ++i)
        REQUIRE(out[static_cast<std::size_t>(t) * width + i] ==
                (inside ? table[static_cast<std::size_t>(ids[t] - first) * width + i] : 0));
    }

    std::vector<int> index(static_cast<std::size_t>(tokens));
    for (int& row : index) row = random_int(-1, count - 1);
    const auto before = random_bf16(static_cast<std::size_t>(tokens) * width);
    const DeviceArray<Bits> d_rows(before);
    const DeviceArray<int> d_index(index);
    REQUIRE(kernels::gather_rows(d_table.get(), d_index.get(), tokens, sizeof(Bits) * width, d_rows.get(), nullptr) ==
            cudaSuccess);
    const auto rows = d_rows.download();
    for (int t = 0; t < tokens; ++t)
      for (int i = 0; i < width; ++i) {
        const std::size_t at = static_cast<std::size_t>(t) * width + i;
        REQUIRE(rows[at] == (index[t] < 0 ? before[at] : table[static_cast<std::size_t>(index[t]) * width + i]));
      }
  }
}

TEST_CASE("position table, and conversions") {
  if (!test::has_device()) return;
  const int side = 12, width = 144, patches = 77;
  const auto table = random_bf16(static_cast<std::size_t>(side) * side * width),
             x = random_bf16(static_cast<std::size_t>(patches) * width);
  std::vector<kernels::TableCorners> corners(static_cast<std::size_t>(patches));
  for (auto& corner : corners)
    for (int i = 0; i < 4; ++i) {
      corner.index[i] = random_int(0, side * side - 1);
      corner.weight[i] = static_cast<float>(random_int(0, 100)) / 100;
    }
  const DeviceArray<Bits> d_table(table), d_x(x);
  const DeviceArray<kernels::TableCorners> d_corners(corners);
  REQUIRE(kernels::add_position_embedding(bf16(d_x), d_corners.get(), bf16(d_table), patches, width, nullptr) ==
          cudaSuccess);
  std::vector<double> expected(x.size());
  for (int p = 0; p < patches; ++p)
    for (int i = 0; i < width; ++i) {
      double sum = bf16_to_float(x[static_cast<std::size_t>(p) * width + i]);
      for (int c = 0; c < 4; ++c)
        sum += static_cast<double>(corners[p].weight[c]) *
               bf16_to_float(table[static_cast<std::size_t>(corners[p].index[c]) * width + i]);
      expected[static_cast<std::size_t>(p) * width + i] = sum;
    }
  check_near(d_x.download(), expected);

  auto floats = random_floats(1001, 100);
  floats[0] = std::numeric_limits<float>::infinity();
  floats[1] = 1 + 0x1p-8f;  // a tie, to the even neighbour
  const DeviceArray<float> d_floats(floats), d_back(floats.size());
  const DeviceArray<Bits> d_rounded(floats.size());
  REQUIRE(kernels::to_bfloat16(d_floats.get(), 1001, bf16(d_rounded), nullptr) == cudaSuccess);
  REQUIRE(kernels::to_float(bf16(d_rounded), 1001, d_back.get(), nullptr) == cudaSuccess);
  const auto rounded = d_rounded.download();
  const auto back = d_back.download();
  for (std::size_t i = 0; i < floats.size(); ++i) {
    REQUIRE(rounded[i] == float_to_bf16(floats[i]));
    REQUIRE(back[i] == bf16_to_float(rounded[i]));
  }
}

TEST_CASE("the largest logits, and sums over two models' logits") {
  if (!test::has_device()) return;
  for (const int width : {1, 15, 330, 4096, 75968}) {
    const int rows = 6, first_id = 1000;
    if (test::is_too_large(rows * width)) continue;
    const auto count = static_cast<std::size_t>(rows) * width;
    auto x = random_floats(count, 4);
    if (width > 20) {
      x[3] = x[17] = 50;                                                               // equal: the lower id
      std::fill_n(x.begin() + width, width, std::numeric_limits<float>::quiet_NaN());  // row 1: nothing to choose
      x[2 * static_cast<std::size_t>(width) + 5] = std::numeric_limits<float>::infinity();
    }
    auto y = x;
    const auto noise = random_floats(count, 0.05f);
    for (std::size_t i = 0; i < count; ++i) y[i] += noise[i];
    std::vector<int> targets;
    for (int row = 0; row < rows; ++row) targets.push_back(first_id + random_int(-2, width + 1));
    const DeviceArray<float> d_x(x), d_y(y);
    const DeviceArray<int> d_targets(targets);
    const DeviceArray<kernels::TopLogit> d_top(static_cast<std::size_t>(rows) * kernels::kTopLogitSlices);
    const DeviceArray<kernels::LogitSums> d_sums(static_cast<std::size_t>(rows));
    REQUIRE(kernels::top_logits(d_x.get(), rows, width, first_id, d_top.get(), nullptr) == cudaSuccess);
    REQUIRE(kernels::compare_logits(d_x.get(), d_y.get(), d_targets.get(), rows, width, first_id, d_sums.get(),
                                    nullptr) == cudaSuccess);
    const auto top = d_top.download();
    const auto sums = d_sums.download();
    for (int row = 0; row < rows; ++row) {
      const float* a = x.data() + static_cast<std::size_t>(row) * width;
      const float* b = y.data() + static_cast<std::size_t>(row) * width;
      int best = -1;
      bool finite = true;
      for (int i = 0; i < width; ++i) {
        finite = finite && std::isfinite(a[i]) && std::isfinite(b[i]);
        if (std::isfinite(a[i]) && (best < 0 || a[i] > a[best])) best = i;
      }
      kernels::TopLogit found{0, -1};
      for (int slice = 0; slice < kernels::kTopLogitSlices; ++slice) {
        const auto& t = top[static_cast<std::size_t>(row) * kernels::kTopLogitSlices + slice];
        if (t.id >= 0 && (found.id < 0 || t.value > found.value)) found = t;
      }
      CHECK(found.id == (best < 0 ? -1 : first_id + best));
      const auto& s = sums[row];
      REQUIRE((s.finite != 0) == finite);
      if (!finite) continue;
      CHECK(s.top_x == first_id + best);
      double sum = 0, weighted = 0;
      for (int i = 0; i < width; ++i) {
        const double e = std::exp(static_cast<double>(a[i]) - a[best]);
        sum += e;
        weighted += e * (static_cast<double>(a[i]) - b[i]);
      }
      CHECK(s.sum_x == doctest::Approx(sum).epsilon(1e-5));
      CHECK(s.weighted == doctest::Approx(weighted).epsilon(1e-4));
      const int target = targets[row] - first_id;
      REQUIRE((s.has_target != 0) == (target >= 0 && target < width));
      if (s.has_target) {
        CHECK(s.target_x == a[target]);
        CHECK(s.target_y == b[target]);
      }
    }
  }
}

TEST_CASE("the read bandwidth is a number that a GPU can have") {
  if (!test::has_device()) return;
  double bandwidth = 0;
  REQUIRE(kernels::measure_read_bandwidth(std::size_t{64} << 20, bandwidth) == cudaSuccess);
  CHECK(bandwidth > (test::is_reduced() ? 1e6 : 1e10));  // under a sanitizer everything is slow
  CHECK(bandwidth < 1e14);
}
