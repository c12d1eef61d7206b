// A decode step's layers (decode_chain), shapes of Qwen3-VL-32B on one GPU and on one of two (nothing is exchanged),
// against the rate at which the same device reads memory: without attention, and with that over an FP8 cache before it.
//   decode_chain_bench [layers, default 12] [ranks group tokens, default all of 1 2, 128 32, 1 2 8 16]
// Weights are random and lie behind one another, so that a replay of the graph reads each once and the next replay
// finds none of them in L2. Times are of graph replays, by events: median, (p90 - p10) / median, share.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/bench/replay.cuh"
#include "kernels/decode_attention.h"
#include "kernels/decode_chain.h"
#include "kernels/read_bandwidth.h"

namespace {

using namespace qwenbench::kernels;

template <class T>
T* allocate(std::size_t count, unsigned mask, unsigned base) {
  void* data = nullptr;
  const std::size_t words = (count * sizeof(T) + 3) / 4;
  CHECK_CUDA(cudaMalloc(&data, words * 4));
  bench::fill<<<1024, 256>>>(static_cast<unsigned*>(data), words, mask, base, 1);
  return static_cast<T*>(data);
}
constexpr unsigned kAny = 0xffffffffU, kSignAndMantissa = 0x807f807fU;

W4Weights weights(int n, int k, int group, bool paired = false) {
  const auto* codes = allocate<unsigned char>(w4_codes_bytes(n, k), kAny, 0);
  const auto* groups = allocate<unsigned char>(w4_groups_bytes(n, k, group), kSignAndMantissa, 0x3c003c00U);  // 2^-7
  return {codes, groups, n, k, group, paired};
}
double bytes_of(const W4Weights& w) {
  return static_cast<double>(w4_codes_bytes(w.n, w.k) + w4_groups_bytes(w.n, w.k, w.group_size));
}
void release(const W4Weights& w) {
  cudaFree(const_cast<void*>(w.codes));
  cudaFree(const_cast<void*>(w.groups));
}

/// Attention of m sequences of `context` tokens over a cache of each layer's own.
struct Context {
  static constexpr int kBlock = 16;
  std::vector<DecodeAttention> layers;
  std::vector<void*> memory;
  double bytes = 0;

  Context(int ranks, int m, int context, int count, void* qkv, void* out) {
    const int heads = 64 / ranks, kv_heads = 8 / ranks, blocks = (context + kBlock - 1) / kBlock;
    const auto numbers = [&](int n, auto value_of) {
      std::vector<int> values;
      for (int i = 0; i < n; ++i) values.push_back(value_of(i));
      return static_cast<int*>(upload(values.data(), values.size() * sizeof(int)));
    };
    const std::vector<float> ones(64, 1.0F);
    const std::vector<std::int64_t> slots = [&] {
      std::vector<std::int64_t> newest;
      for (int s = 0; s < m; ++s) newest.push_back(std::int64_t{s} * blocks * kBlock + context - 1);
      return newest;
    }();
    DecodeAttention op{};
    op.heads = heads;
    op.out = out;
    op.max_kv_length = 8192;
    op.workspace = upload(nullptr, decode_attention_workspace_bytes(m, heads, kv_heads));
    op.batch = {numbers(m * blocks, [](int i) { return i; }),
                blocks,
                numbers(m, [&](int) { return context; }),
                numbers(m, [](int i) { return i; }),
                numbers(m, [](int) { return 1; }),
                m};
    op.raw.qkv = qkv;
    op.raw_is_announced = true;
    op.out_factor = kChainInputFactor;
    op.raw.tokens = m;
    op.raw.heads = heads;
    op.raw.q_weight = op.raw.k_weight = upload(nullptr, kHeadDim * 2);
    op.raw.eps = 1e-6F;
    op.raw.cos = op.raw.sin = static_cast<float*>(upload(nullptr, std::size_t{64} * m * sizeof(float)));
    op.raw.slot = static_cast<std::int64_t*>(upload(slots.data(), slots.size() * sizeof(std::int64_t)));
    auto* scales = static_cast<float*>(upload(ones.data(), ones.size() * sizeof(float)));
    const std::size_t size = std::size_t{1} * m * blocks * kBlock * kv_heads * kHeadDim;
    for (int i = 0; i < count; ++i) {
      op.cache = {upload(nullptr, size), upload(nullptr, size), KvDtype::kFp8E4M3, kv_heads, kBlock, scales, scales};
      op.raw.cache = op.cache;
      bytes += 2.0 * static_cast<double>(size);
      layers.push_back(op);
    }
    CHECK_CUDA(plan_decode_attention(op, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
  }
  ~Context() {
    for (void* data : memory) cudaFree(data);
  }

  /// A copy on the device; zeros where there is nothing to copy.
  void* upload(const void* from, std::size_t size) {
    void* data = nullptr;
    CHECK_CUDA(cudaMalloc(&data, size));
    CHECK_CUDA(from ? cudaMemcpy(data, from, size, cudaMemcpyHostToDevice) : cudaMemset(data, 0, size));
    memory.push_back(data);
    return data;
  }
};

/// Layers of one rank out of `ranks`.
struct Model {
  static constexpr int kHidden = 5120, kHeads = 8192, kKv = 2048, kIntermediate = 25600;
  std::vector<DecodeChain> layers;
  double bytes = 0;

  Model(int ranks, int group, int count) {
    auto* attended = allocate<__nv_bfloat16>(kChainMaxTokens * kHeads, kSignAndMantissa, 0x5f005f00U);  // 2^63
    auto* qkv = allocate<__nv_bfloat16>(kChainMaxTokens * (kHeads + kKv), kSignAndMantissa, 0x3f003f00U);
    auto* norm = allocate<__nv_bfloat16>(kHidden, kSignAndMantissa, 0x3f003f00U);
    auto* residual = allocate<float>(kChainMaxTokens * kHidden, 0x807fffffU, 0x3f000000U);
    for (int i = 0; i < count; ++i) {
      DecodeChain c;
      c.o = weights(kHidden, kHeads / ranks, group);
      c.gate_up = weights(2 * kIntermediate / ranks, kHidden, group, true);
      c.down = weights(kHidden, kIntermediate / ranks, group);
      c.qkv = weights((kHeads + kKv) / ranks, kHidden, group);
      for (const W4Weights* w : {&c.o, &c.gate_up, &c.down, &c.qkv}) bytes += bytes_of(*w);
      c.middle = c.next = {norm, 1e-6F};
      c.attended = attended;
      c.qkv_out = qkv;
      c.residual = residual;
      layers.push_back(c);
    }
    void* workspace = nullptr;
    CHECK_CUDA(cudaMalloc(&workspace, decode_chain_workspace_bytes(layers[0])));
    CHECK_CUDA(cudaMemset(workspace, 0, decode_chain_workspace_bytes(layers[0])));
    for (DecodeChain& layer : layers) layer.workspace = workspace;
    CHECK_CUDA(cudaDeviceSynchronize());
  }
  ~Model() {
    for (const DecodeChain& c : layers)
      for (const W4Weights* w : {&c.o, &c.gate_up, &c.down, &c.qkv}) release(*w);
    cudaFree(layers[0].workspace);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int layers = argc > 1 ? std::atoi(argv[1]) : 12;
  const auto wanted = [&](int argument, int value) { return argc <= argument || std::atoi(argv[argument]) == value; };
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  double ceiling = 0;
  CHECK_CUDA(measure_read_bandwidth(std::size_t{1} << 30, ceiling));
  std::printf("%s, read %.0f GB/s; us a layer, spread (share): without attention | with, by tokens of context\n",
              properties.name, ceiling * 1e-9);
  std::printf("%-6s %-6s %3s\n", "ranks", "group", "m");
  for (const int ranks : {1, 2})
    for (const int group : {128, 32}) {
      if (!wanted(2, ranks) || !wanted(3, group)) continue;
      const Model model(ranks, group, layers);
      for (const int m : {1, 2, 8, 16}) {
        if (!wanted(4, m)) continue;
        const auto print = [&](const Context* context) {
          const bench::Timing time = bench::replay(
              [&](cudaStream_t stream) {
                for (std::size_t i = 0; i < model.layers.size(); ++i) {
                  DecodeChain c = model.layers[i];
                  c.m = m;
                  if (context) CHECK_CUDA(decode_attention(context->layers[i], stream));
                  CHECK_CUDA(decode_chain(c, stream));
                }
              },
              20);
          const double bytes = model.bytes + (context ? context->bytes : 0);
          std::printf(" %7.2f %.3f (%.3f)", time.median / layers, time.spread(),
                      bytes / (time.median * 1e-6) / ceiling);
        };
        std::printf("%-6d %-6d %3d", ranks, group, m);
        print(nullptr);
        for (const int length : {128, 1024, 8192}) {
          const Context context(ranks, m, length, layers, model.layers[0].qkv_out,
                                const_cast<__nv_bfloat16*>(model.layers[0].attended));
          std::printf(" | %5d", length);
          print(&context);
        }
        std::printf("\n");
      }
    }
  return 0;
}
