// The fused decode step of a layer against the same formulas on the host, sums in double, rounded to bf16 where the
// kernel stores bf16.
#include "kernels/decode_chain.h"

#include <doctest/doctest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/w4_matrix.h"

namespace qwenbench::kernels {
namespace {

using namespace test;

struct Case {
  int hidden, heads_width, intermediate, qkv, group_size;  // qkv 0: the last layer
};
const Case kCases[] = {
    {64, 128, 96, 128, 32},      {256, 512, 768, 1024, 32},    {256, 512, 768, 0, 128},
    {1024, 2048, 2080, 768, 32}, {5120, 1024, 1024, 512, 128}, {2048, 2048, 1600, 1536, 128},
    {320, 144, 48, 80, 32},      {128, 128, 64, 2048, 32},  // thread blocks with a part of the last product alone
    {256, 128, 20480, 128, 128}};                           // more tiles than thread blocks

/// y[m, n] of x[m, k]. The scale multiplies sums: no weight is rounded.
std::vector<double> product(const std::vector<double>& x, const W4Matrix& w, int m) {
  std::vector<double> y(static_cast<std::size_t>(m) * w.n);
  for (int t = 0; t < m; ++t)
    for (int r = 0; r < w.n; ++r) {
      double sums[8] = {};  // k is a multiple of 8; several sums let the compiler vectorise
      const float* row = w.exact.data() + static_cast<std::size_t>(r) * w.k;
      const double* token = x.data() + static_cast<std::size_t>(t) * w.k;
      for (int c = 0; c < w.k; c += 8)
        for (int i = 0; i < 8; ++i) sums[i] += token[c + i] * static_cast<double>(row[c + i]);
      y[static_cast<std::size_t>(t) * w.n + r] = std::accumulate(sums, sums + 8, 0.0);
    }
  return y;
}

double to_bf16(double v) { return static_cast<double>(rounded(static_cast<float>(v))); }

std::vector<double> widened(const std::vector<Bf16>& values) {
  std::vector<double> out;
  for (const Bf16 v : values) out.push_back(static_cast<double>(__bfloat162float(v)));
  return out;
}

constexpr float kEps = 1e-6F;

struct Layer {
  Layer(const Case& c, std::mt19937& random)
      : shape(c),
        o(c.hidden, c.heads_width, c.group_size, random),
        gate_up(2 * c.intermediate, c.hidden, c.group_size, random),
        down(c.hidden, c.intermediate, c.group_size, random),
        middle(random_bf16(static_cast<std::size_t>(c.hidden), random)),
        next(random_bf16(static_cast<std::size_t>(c.hidden), random)) {
    if (c.qkv > 0) qkv.emplace(c.qkv, c.hidden, c.group_size, random);
    // Zeros, which a product must not take for values that are not there yet.
    std::fill_n(middle.begin(), 8, Bf16(0.0F));
    std::fill_n(next.end() - 3, 3, Bf16(0.0F));
  }

  /// h becomes the new residual; returns qkv.
  std::vector<double> compute(const std::vector<double>& attended, std::vector<double>& h, int m) const {
    add(product(attended, o, m), h);
    const std::vector<double> gu = normed_product(h, middle, gate_up, m);
    std::vector<double> y;
    const auto width = static_cast<std::size_t>(shape.intermediate);
    for (std::size_t t = 0; t < static_cast<std::size_t>(m); ++t)
      for (std::size_t i = 0; i < width; ++i) {
        const double gate = gu[2 * t * width + i], up = gu[(2 * t + 1) * width + i];
        y.push_back(to_bf16(gate / (1 + std::exp(-gate)) * up));
      }
    add(product(y, down, m), h);
    return qkv ? normed_product(h, next, *qkv, m) : std::vector<double>{};
  }

  static void add(const std::vector<double>& more, std::vector<double>& h) {
    for (std::size_t i = 0; i < h.size(); ++i) h[i] += more[i];
  }
  std::vector<double> normed_product(const std::vector<double>& h, const std::vector<Bf16>& weight, const W4Matrix& w,
                                     int m) const {
    const auto width = static_cast<std::size_t>(shape.hidden);
    std::vector<double> x(h.size());
    for (std::size_t i = 0; i < h.size(); ++i)
      x[i] = to_bf16(h[i] * static_cast<double>(__bfloat162float(weight[i % width])));
    std::vector<double> y = product(x, w, m);
    for (std::size_t t = 0; t < static_cast<std::size_t>(m); ++t) {
      double squares = 0;
      for (std::size_t i = 0; i < width; ++i) squares += h[t * width + i] * h[t * width + i];
      const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEps));
      for (std::size_t r = 0; r < static_cast<std::size_t>(w.n); ++r) y[t * w.n + r] *= factor;
    }
    return y;
  }

  Case shape;
  W4Matrix o, gate_up, down;
  std::optional<W4Matrix> qkv;
  std::vector<Bf16> middle, next;
};

/// A layer's weights on the device.
struct DeviceLayer {
  explicit DeviceLayer(const Layer& layer)
      : o(layer.o), gate_up(layer.gate_up, true), down(layer.down), middle(layer.middle), next(layer.next) {
    if (layer.qkv) qkv = std::make_unique<PackedW4>(*layer.qkv);
    chain.o = o.weights;
    chain.gate_up = gate_up.weights;
    chain.down = down.weights;
    if (qkv) chain.qkv = qkv->weights;
    chain.middle = {middle.get(), kEps};
    chain.next = {next.get(), kEps};
    workspace = std::make_unique<DeviceArray<std::uint8_t>>(decode_chain_workspace_bytes(chain), 0);
    chain.workspace = workspace->get();
  }
  PackedW4 o, gate_up, down;
  std::unique_ptr<PackedW4> qkv;
  DeviceArray<Bf16> middle, next;
  std::unique_ptr<DeviceArray<std::uint8_t>> workspace;
  DecodeChain chain;
};

/// As attention leaves it for the chain.
std::vector<Bf16> as_input(std::vector<Bf16> attended) {
  for (Bf16& v : attended) v = __float2bfloat16(__bfloat162float(v) * kChainInputFactor);
  return attended;
}

std::vector<float> random_floats(std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

TEST_CASE("decode chain: every shape and number of tokens") {
  if (!has_device()) return;
  std::mt19937 random(7);
  for (const Case& shape : kCases) {
    const Layer layer(shape, random);
    DeviceLayer device(layer);
    REQUIRE(decode_chain_supports(device.chain));
    // A launch finds what one of more tokens has left. The second number is the thread limit: 512 as without sm_90a.
    for (const auto& [m, thread_limit] : {std::pair{16, 0}, {1, 0}, {9, 512}, {16, 512}, {9, 0}, {3, 0}, {8, 0}}) {
      if ((shape.hidden > 1024 || shape.intermediate > 4096) && m != 3 && m != 16)
        continue;  // the sums on the host take their time
      INFO(shape.hidden, " ", shape.heads_width, " ", shape.intermediate, " ", shape.qkv, " ", m, " ", thread_limit);
      const auto rows = static_cast<std::size_t>(m);
      const std::vector<Bf16> attended = random_bf16(rows * shape.heads_width, random);
      const std::vector<float> residual = random_floats(rows * shape.hidden, random);
      std::vector<double> h(residual.begin(), residual.end());
      const std::vector<double> expected = layer.compute(widened(attended), h, m);
      std::vector<float> first_h;
      std::vector<Bf16> first_qkv;
      for (int run = 0; run < 3; ++run) {  // over the used workspace: the same bits
        INFO("run ", run);
        const DeviceArray<Bf16> in(as_input(attended)), out(std::max<std::size_t>(rows * shape.qkv, 1));
        const DeviceArray<float> device_h(residual);
        DecodeChain chain = device.chain;
        chain.attended = in.get();
        chain.residual = device_h.get();
        chain.qkv_out = out.get();
        chain.m = m;
        chain.thread_limit = thread_limit;
        REQUIRE(decode_chain(chain, nullptr) == cudaSuccess);
        const std::vector<float> got_h = device_h.download();
        const std::vector<Bf16> got_qkv = out.download();
        if (run > 0) {
          CHECK(got_h == first_h);
          if (shape.qkv > 0)
            CHECK(std::equal(got_qkv.begin(), got_qkv.end(), first_qkv.begin(),
                             [](Bf16 a, Bf16 b) { return __bfloat16_as_ushort(a) == __bfloat16_as_ushort(b); }));
          continue;
        }
        check_close(got_h, h, 1e-3);  // a value that rounds to the other bf16 neighbour costs 2^-8 of itself
        if (shape.qkv > 0) check_close(got_qkv, expected, 5e-3);
        first_h = got_h;
        first_qkv = got_qkv;
      }
    }
  }
}

TEST_CASE("decode chain: kernels behind one another, as captured in a graph") {
  if (!has_device()) return;
  std::mt19937 random(8);
  const Layer layer({256, 512, 768, 512, 32}, random);
  DeviceLayer device(layer);
  const int m = 5, launches = 6;
  const std::vector<Bf16> attended = random_bf16(m * 512, random);
  const std::vector<float> residual = random_floats(m * 256, random);
  const DeviceArray<Bf16> in(as_input(attended)), out(m * 512);
  const DeviceArray<float> device_h(residual);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  for (int i = 0; i < launches; ++i) {
    DecodeChain chain = device.chain;
    chain.attended = in.get();
    chain.qkv_out = out.get();
    chain.residual = device_h.get();
    chain.m = m;
    REQUIRE(decode_chain(chain, stream) == cudaSuccess);
  }
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  REQUIRE(cudaGraphLaunch(exec, stream) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
  std::vector<double> h(residual.begin(), residual.end()), qkv;
  for (int i = 0; i < launches; ++i) qkv = layer.compute(widened(attended), h, m);
  check_close(device_h.download(), h, 5e-3);
  check_close(out.download(), qkv, 1e-2);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_CASE("decode chain: what it does not take") {
  if (!has_device()) return;
  std::mt19937 random(9);
  const Layer layer({256, 512, 768, 512, 32}, random);
  DeviceLayer device(layer);
  CHECK(decode_chain_supports(device.chain));
  DecodeChain other = device.chain;
  other.gate_up.n -= 32;
  CHECK_FALSE(decode_chain_supports(other));
  other = device.chain;
  other.down.group_size = 128;
  CHECK_FALSE(decode_chain_supports(other));
  other = device.chain;
  other.m = kChainMaxTokens + 1;
  CHECK(decode_chain(other, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace qwenbench::kernels
