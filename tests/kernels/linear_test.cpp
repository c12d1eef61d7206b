// The decode products against sums in double on the host.
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/bf16_linear.h"
#include "kernels/device_array.h"
#include "kernels/effort.h"
#include "kernels/fp8_block_linear.h"
#include "kernels/w4_linear.h"
#include "kernels/w4_matrix.h"

namespace qwenbench::kernels {
namespace {

using namespace test;

/// y[m, n] in double.
std::vector<double> product(const std::vector<Bf16>& x, const std::vector<float>& w, int m, int n, int k) {
  std::vector<float> xf(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) xf[i] = __bfloat162float(x[i]);
  std::vector<double> y(static_cast<std::size_t>(m) * n);
  for (int t = 0; t < m; ++t)
    for (int r = 0; r < n; ++r) {
      double sum = 0;
      for (int c = 0; c < k; ++c)
        sum += static_cast<double>(xf[static_cast<std::size_t>(t) * k + c]) * w[static_cast<std::size_t>(r) * k + c];
      y[static_cast<std::size_t>(t) * n + r] = sum;
    }
  return y;
}

void check_counters(const DeviceArray<std::uint8_t>& workspace) {
  const std::vector<std::uint8_t> bytes = workspace.download();
  std::size_t left = 0;
  for (std::size_t i = 0; i < 65536; ++i) left += bytes[i];
  CHECK(left == 0);
}

DeviceArray<std::uint8_t>& zero_counters(DeviceArray<std::uint8_t>& workspace) {
  REQUIRE(cudaMemset(workspace.get(), 0, 65536) == cudaSuccess);
  return workspace;
}

struct W4Case {
  int n, k, group_size;
};

const W4Case kW4Cases[] = {{16, 16, 16},      {16, 32, 32},      {48, 80, 32},     {64, 128, 128},    {80, 144, 144},
                           {272, 640, 64},    {1040, 272, 32},   {512, 4096, 128}, {2064, 1152, 128}, {4112, 1040, 32},
                           {320, 9216, 9216}, {1280, 5120, 256}, {10240, 256, 32}, {768, 25600, 128}};

TEST_CASE("w4: products of every shape and number of tokens") {
  if (!has_device()) return;
  std::mt19937 random(1);
  for (const W4Case& shape : kW4Cases) {
    if (qwenbench::test::is_too_large(static_cast<long long>(shape.n) * shape.k)) continue;
    const W4Matrix matrix(shape.n, shape.k, shape.group_size, random);
    const PackedW4 packed(matrix, shape.n % 32 == 0 && shape.k % 256 == 0);
    for (const int m : {1, 2, 5, 8, 9, 16, 23, 32, 33, 65, 96}) {
      if (m > 16 && static_cast<long long>(shape.n) * shape.k > 6000000) continue;
      {
        INFO(shape.n, " ", shape.k, " ", shape.group_size, " ", m);
        const std::vector<Bf16> x = random_bf16(static_cast<std::size_t>(m) * shape.k, random);
        const DeviceArray<Bf16> dx(x), dy(static_cast<std::size_t>(m) * shape.n);
        DeviceArray<std::uint8_t> workspace(w4_workspace_bytes(m));
        zero_counters(workspace);
        REQUIRE(w4_linear(dx.get(), packed.weights, dy.get(), m, workspace.get(), nullptr, false) == cudaSuccess);
        const std::vector<Bf16> y = dy.download();
        check_close(y, product(x, matrix.values, m, shape.n, shape.k), 4e-3);
        check_counters(workspace);
        // Again, over the used workspace: the same bits.
        const DeviceArray<Bf16> again(static_cast<std::size_t>(m) * shape.n);
        REQUIRE(w4_linear(dx.get(), packed.weights, again.get(), m, workspace.get(), nullptr, true) == cudaSuccess);
        const std::vector<Bf16> z = again.download();
        std::size_t unequal = 0;
        for (std::size_t i = 0; i < y.size(); ++i)
          unequal += __bfloat16_as_ushort(y[i]) != __bfloat16_as_ushort(z[i]) ? 1 : 0;
        CHECK(unequal == 0);
      }
    }
  }
}

TEST_CASE("w4: dequantize is exact") {
  if (!has_device()) return;
  std::mt19937 random(2);
  for (const W4Case& shape : kW4Cases) {
    if (qwenbench::test::is_too_large(static_cast<long long>(shape.n) * shape.k)) continue;
    INFO(shape.n, " ", shape.k, " ", shape.group_size);
    const W4Matrix matrix(shape.n, shape.k, shape.group_size, random);
    const PackedW4 packed(matrix, shape.n % 32 == 0);
    const DeviceArray<Bf16> out(matrix.values.size());
    REQUIRE(w4_dequantize(packed.weights, out.get(), nullptr) == cudaSuccess);
    const std::vector<Bf16> values = out.download();
    std::size_t unequal = 0;
    for (std::size_t i = 0; i < values.size(); ++i) unequal += __bfloat162float(values[i]) == matrix.values[i] ? 0 : 1;
    CHECK(unequal == 0);
  }
}

TEST_CASE("w4: a chain of products that start early computes what one after the other does") {
  if (!has_device()) return;
  std::mt19937 random(3);
  const W4Matrix up(4096, 1024, 32, random), down(1024, 4096, 128, random);
  const PackedW4 packed_up(up), packed_down(down);
  for (const int m : {1, 16}) {
    INFO(m);
    const DeviceArray<Bf16> x(random_bf16(static_cast<std::size_t>(m) * 1024, random));
    DeviceArray<std::uint8_t> workspace(w4_workspace_bytes(m));
    zero_counters(workspace);
    const auto chain = [&](bool programmatic, cudaStream_t stream, const DeviceArray<Bf16>& a,
                           const DeviceArray<Bf16>& b) {
      const Bf16* from = x.get();
      for (int i = 0; i < 20; ++i) {
        REQUIRE(w4_linear(from, packed_up.weights, a.get(), m, workspace.get(), stream, programmatic) == cudaSuccess);
        REQUIRE(w4_linear(a.get(), packed_down.weights, b.get(), m, workspace.get(), stream, programmatic) ==
                cudaSuccess);
        from = b.get();
      }
    };
    const DeviceArray<Bf16> a(static_cast<std::size_t>(m) * 4096), plain(static_cast<std::size_t>(m) * 1024),
        early(static_cast<std::size_t>(m) * 1024);
    chain(false, nullptr, a, plain);
    const std::vector<Bf16> expected = plain.download();
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    chain(true, stream, a, early);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    for (int i = 0; i < 10; ++i) REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
    const std::vector<Bf16> y = early.download();
    std::size_t unequal = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      unequal += __bfloat16_as_ushort(y[i]) != __bfloat16_as_ushort(expected[i]) ? 1 : 0;
    CHECK(unequal == 0);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}

TEST_CASE("w4: arguments that do not fit are refused") {
  W4Weights weights{nullptr, nullptr, 24, 128, 32};
  CHECK(w4_linear(nullptr, weights, nullptr, 1, nullptr, nullptr) == cudaErrorInvalidValue);
  weights.n = 32, weights.group_size = 48;
  CHECK(w4_linear(nullptr, weights, nullptr, 1, nullptr, nullptr) == cudaErrorInvalidValue);
  weights.group_size = 32;
  CHECK(w4_linear(nullptr, weights, nullptr, 0, nullptr, nullptr) == cudaErrorInvalidValue);
  CHECK(w4_linear(nullptr, weights, nullptr, kW4MaxTokens + 1, nullptr, nullptr) == cudaErrorInvalidValue);
  CHECK(bf16_linear(nullptr, nullptr, static_cast<float*>(nullptr), 1, 8, 12, nullptr, nullptr) ==
        cudaErrorInvalidValue);
}

TEST_CASE("bf16: products, bf16 and fp32 output") {
  if (!has_device()) return;
  std::mt19937 random(4);
  const int shapes[][2] = {{1, 8}, {7, 24}, {16, 64}, {33, 200}, {130, 1024}, {1111, 5120}, {20003, 264}};
  for (const auto& shape : shapes) {
    const int n = shape[0], k = shape[1];
    if (qwenbench::test::is_too_large(static_cast<long long>(n) * k)) continue;
    const std::vector<Bf16> w = random_bf16(static_cast<std::size_t>(n) * k, random);
    std::vector<float> values;
    for (const Bf16 v : w) values.push_back(__bfloat162float(v));
    const DeviceArray<Bf16> dw(w);
    for (const int m : {1, 3, 8, 9, 16}) {
      INFO(n, " ", k, " ", m);
      const std::vector<Bf16> x = random_bf16(static_cast<std::size_t>(m) * k, random);
      const DeviceArray<Bf16> dx(x), narrow(static_cast<std::size_t>(m) * n);
      const DeviceArray<float> wide(static_cast<std::size_t>(m) * n);
      DeviceArray<std::uint8_t> workspace(bf16_linear_workspace_bytes(m));
      zero_counters(workspace);
      REQUIRE(bf16_linear(dx.get(), dw.get(), narrow.get(), m, n, k, workspace.get(), nullptr) == cudaSuccess);
      REQUIRE(bf16_linear(dx.get(), dw.get(), wide.get(), m, n, k, workspace.get(), nullptr) == cudaSuccess);
      const std::vector<double> expected = product(x, values, m, n, k);
      check_close(narrow.download(), expected, 3e-3);
      check_close(wide.download(), expected, 1e-5);
      check_counters(workspace);
    }
  }
}

float e4m3(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(8.F + static_cast<float>(mantissa), exponent - 10);
  return (code & 128) != 0 ? -magnitude : magnitude;
}

TEST_CASE("fp8 blocks: products, and dequantize is exact") {
  if (!has_device()) return;
  std::mt19937 random(5);
  const int shapes[][2] = {{1, 16}, {40, 48}, {128, 128}, {200, 144}, {1300, 1280}, {272, 5120}, {5000, 272}};
  for (const auto& shape : shapes) {
    const int n = shape[0], k = shape[1], units = (k + 127) / 128;
    if (qwenbench::test::is_too_large(static_cast<long long>(n) * k)) continue;
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(n) * k);
    for (auto& c : codes) {
      c = static_cast<std::uint8_t>(random());
      if ((c & 127) == 127) c = 0;
    }
    std::vector<float> scales(static_cast<std::size_t>((n + 127) / 128) * units), values(codes.size());
    std::uniform_real_distribution<float> scale(1e-4F, 1e-2F);
    for (float& s : scales) s = scale(random);
    std::vector<float> bf16_values(codes.size());
    for (int r = 0; r < n; ++r)
      for (int c = 0; c < k; ++c) {
        const std::size_t at = static_cast<std::size_t>(r) * k + c;
        values[at] = e4m3(codes[at]) * scales[static_cast<std::size_t>(r / 128) * units + c / 128];
        bf16_values[at] = rounded(values[at]);
      }
    const DeviceArray<std::uint8_t> dcodes(codes);
    const DeviceArray<float> dscales(scales);
    const Fp8BlockWeights weights{dcodes.get(), dscales.get(), n, k};
    for (const int m : {1, 8, 9, 16, 31, 64}) {
      INFO(n, " ", k, " ", m);
      const std::vector<Bf16> x = random_bf16(static_cast<std::size_t>(m) * k, random);
      const DeviceArray<Bf16> dx(x), dy(static_cast<std::size_t>(m) * n);
      DeviceArray<std::uint8_t> workspace(fp8_block_workspace_bytes(m));
      zero_counters(workspace);
      REQUIRE(fp8_block_linear(dx.get(), weights, dy.get(), m, workspace.get(), nullptr) == cudaSuccess);
      check_close(dy.download(), product(x, values, m, n, k), 3e-3);
      check_counters(workspace);
    }
    const DeviceArray<Bf16> out(codes.size());
    REQUIRE(fp8_block_dequantize(weights, out.get(), nullptr) == cudaSuccess);
    const std::vector<Bf16> y = out.download();
    std::size_t unequal = 0;
    for (std::size_t i = 0; i < y.size(); ++i) unequal += __bfloat162float(y[i]) == bf16_values[i] ? 0 : 1;
    CHECK(unequal == 0);
  }
}

}  // namespace
}  // namespace qwenbench::kernels
