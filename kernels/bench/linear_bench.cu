// Decode products of Qwen3-VL-32B's shapes against the rate at which the same device reads memory.
//   linear_bench [pool in GB, default 4] [chain]      chain: whole layers only
// Weights are random and lie behind one another in a pool, so that a replay of the graph reads each once and the next
// replay finds none of them in L2. Times are of graph replays, by events: median, and (p90 - p10) / median.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/bench/replay.cuh"
#include "kernels/bf16_linear.h"
#include "kernels/fp8_block_linear.h"
#include "kernels/w4_linear.h"

namespace {

using namespace qwenbench::kernels;
using Bf16 = __nv_bfloat16;

__global__ void read_all(const uint4* from, std::size_t count, unsigned* out) {
  unsigned sum = 0;
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(from + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345678U) *out = sum;
}

struct Bench {
  unsigned char* pool = nullptr;
  std::size_t pool_bytes = 0;
  Bf16* x = nullptr;
  Bf16* y = nullptr;
  void* workspace = nullptr;
  double ceiling = 0;  // GB/s

  void print(const std::string& what, int m, double bytes, const bench::Timing& t, int launches) const {
    const double rate = bytes / t.median * 1e-3;
    std::printf("%-34s m %2d  %8.1f MB  %9.2f us/launch  %7.0f GB/s  share %.3f  spread %.3f\n", what.c_str(), m,
                bytes * 1e-6 / launches, t.median / launches, rate, rate / ceiling, t.spread());
  }
};

struct Product {
  const char* name;
  int n, k;
};
const Product kLayer[] = {{"qkv", 10240, 5120}, {"o", 5120, 8192}, {"gate_up", 51200, 5120}, {"down", 5120, 25600}};

std::size_t bytes_of(const Product& p, int group) {
  return w4_codes_bytes(p.n, p.k) + w4_groups_bytes(p.n, p.k, group);
}

/// The i-th matrix from `at` on; codes and groups one behind the other.
W4Weights place(unsigned char*& at, const Product& p, int group) {
  W4Weights w{at, at + w4_codes_bytes(p.n, p.k), p.n, p.k, group};
  at += (bytes_of(p, group) + 255) / 256 * 256;
  return w;
}

/// Programmatic layer chains in one line: us and share.
void table(const Bench& bench, const char* name) {
  std::printf("%-14s", name);
  for (const auto& [group, m] :
       {std::pair{128, 1}, {128, 8}, {128, 16}, {128, 32}, {128, 64}, {32, 1}, {32, 8}, {32, 16}}) {
    std::size_t layer = 0;
    for (const Product& p : kLayer) layer += bytes_of(p, group) + 256;
    const int layers = 8;
    const auto work = [&, group = group, m = m](cudaStream_t stream) {
      unsigned char* at = bench.pool;
      cudaError_t error = cudaSuccess;
      for (int i = 0; i < layers; ++i)
        for (const Product& p : kLayer) {
          const W4Weights w = place(at, p, group);
          if (error == cudaSuccess) error = w4_linear(bench.x, w, bench.y, m, bench.workspace, stream, true);
        }
      return error;
    };
    if (work(nullptr) != cudaSuccess) {
      cudaGetLastError();
      std::printf(" %12s", "-");
      continue;
    }
    const bench::Timing t = bench::replay([&](cudaStream_t stream) { CHECK_CUDA(work(stream)); }, 20);
    double bytes = 0;
    for (const Product& p : kLayer) bytes += static_cast<double>(bytes_of(p, group));
    std::printf(" %6.1f %.3f", t.median / layers, bytes * layers / t.median * 1e-3 / bench.ceiling);
  }
  // The largest alone, at m = 1.
  const Product& p = kLayer[2];
  const bench::Timing t = bench::replay(
      [&](cudaStream_t stream) {
        unsigned char* at = bench.pool;
        for (int i = 0; i < 16; ++i)
          CHECK_CUDA(w4_linear(bench.x, place(at, p, 128), bench.y, 1, bench.workspace, stream, true));
      },
      20);
  std::printf("  gu %6.1f %.3f\n", t.median / 16,
              static_cast<double>(bytes_of(p, 128)) * 16 / t.median * 1e-3 / bench.ceiling);
}

void chain(const Bench& bench, int group, int m, bool programmatic) {
  std::size_t layer = 0;
  for (const Product& p : kLayer) layer += bytes_of(p, group) + 256;
  const int layers = static_cast<int>(std::min<std::size_t>(bench.pool_bytes / layer, 8));
  double bytes = 0;
  const bench::Timing t = bench::replay(
      [&](cudaStream_t stream) {
        unsigned char* at = bench.pool;
        for (int i = 0; i < layers; ++i)
          for (const Product& p : kLayer) {
            const W4Weights w = place(at, p, group);
            bytes += static_cast<double>(bytes_of(p, group));
            CHECK_CUDA(w4_linear(bench.x, w, bench.y, m, bench.workspace, stream, programmatic));
          }
      },
      30);
  bench.print("layer g" + std::to_string(group) + (programmatic ? " programmatic" : " plain"), m, bytes, t, layers);
}

void single(const Bench& bench, const Product& p, int group, int m) {
  const int copies = static_cast<int>(std::min<std::size_t>(bench.pool_bytes / (bytes_of(p, group) + 256), 24));
  const bench::Timing t = bench::replay(
      [&](cudaStream_t stream) {
        unsigned char* at = bench.pool;
        for (int i = 0; i < copies; ++i)
          CHECK_CUDA(w4_linear(bench.x, place(at, p, group), bench.y, m, bench.workspace, stream, true));
      },
      20);
  bench.print(std::string(p.name) + " g" + std::to_string(group), m, static_cast<double>(bytes_of(p, group)) * copies,
              t, copies);
}

}  // namespace

int main(int argc, char** argv) {
  Bench bench;
  bench.pool_bytes = static_cast<std::size_t>((argc > 1 ? std::atof(argv[1]) : 4.0) * 1e9) / 4096 * 4096;
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  const bool compact = argc > 2 && std::string(argv[2]) == "table";
  if (!compact)
    std::printf("%s, %d SMs, L2 %d MB\n", properties.name, properties.multiProcessorCount,
                properties.l2CacheSize >> 20);
  CHECK_CUDA(cudaMalloc(&bench.pool, bench.pool_bytes));
  constexpr std::size_t kActivations = 64 * 51200 * 2;
  CHECK_CUDA(cudaMalloc(&bench.x, kActivations * sizeof(Bf16)));
  CHECK_CUDA(cudaMalloc(&bench.y, kActivations * sizeof(Bf16)));
  CHECK_CUDA(cudaMalloc(&bench.workspace, w4_workspace_bytes(64)));
  CHECK_CUDA(cudaMemset(bench.workspace, 0, w4_workspace_bytes(64)));
  // The pool's bits serve as codes (any), as scales (bf16 of 2^-7..2^-6 and their negatives) and as zeros.
  bench::fill<<<2048, 256>>>(reinterpret_cast<unsigned*>(bench.pool), bench.pool_bytes / 4, 0xBFFFBFFFU, 0, 0);
  bench::fill<<<2048, 256>>>(reinterpret_cast<unsigned*>(bench.x), kActivations / 2, 0x80FF80FFU, 0x3F003F00U, 0);
  bench::fill<<<2048, 256>>>(reinterpret_cast<unsigned*>(bench.y), kActivations / 2, 0x80FF80FFU, 0x3F003F00U, 0);
  CHECK_CUDA(cudaDeviceSynchronize());

  for (const double gigabytes : {4.0, 1.0, 0.25}) {
    const std::size_t bytes = std::min(bench.pool_bytes, static_cast<std::size_t>(gigabytes * 1e9)) / 4096 * 4096;
    const bench::Timing t = bench::replay(
        [&](cudaStream_t stream) {
          read_all<<<properties.multiProcessorCount * 4, 512, 0, stream>>>(
              reinterpret_cast<const uint4*>(bench.pool), bytes / 16, reinterpret_cast<unsigned*>(bench.workspace));
        },
        20);
    const double rate = static_cast<double>(bytes) / t.median * 1e-3;
    bench.ceiling = std::max(bench.ceiling, rate);
    if (!compact) std::printf("read %.2f GB: %.0f GB/s\n", static_cast<double>(bytes) * 1e-9, rate);
  }
  if (compact) {
    table(bench, argc > 3 ? argv[3] : "");
    CHECK_CUDA(cudaDeviceSynchronize());
    return 0;
  }
  std::printf("read ceiling %.0f GB/s\n", bench.ceiling);

  for (const int group : {128, 32})
    for (const int m : {1, 8, 16, 32, 64}) {
      chain(bench, group, m, false);
      chain(bench, group, m, true);
    }
  if (argc > 2) return 0;
  for (const int group : {128, 32})
    for (const int m : {1, 8, 16})
      for (const Product& p : kLayer) single(bench, p, group, m);
  for (const int m : {1, 8, 16}) {
    const int n = 151936, k = 5120;
    const double bytes = 2.0 * n * k;
    const int copies = std::max(1, static_cast<int>(static_cast<double>(bench.pool_bytes) / bytes));
    float* logits = nullptr;
    CHECK_CUDA(cudaMalloc(&logits, sizeof(float) * n * 16));
    const bench::Timing t = bench::replay(
        [&](cudaStream_t stream) {
          for (int i = 0; i < copies; ++i)
            CHECK_CUDA(bf16_linear(bench.x,
                                   reinterpret_cast<const Bf16*>(bench.pool) + static_cast<std::size_t>(i) * n * k,
                                   logits, m, n, k, bench.workspace, stream, true));
        },
        20);
    bench.print("lm_head bf16", m, bytes * copies, t, copies);
    CHECK_CUDA(cudaFree(logits));
  }
  for (const int m : {1, 8, 16})
    for (const Product& p : kLayer) {
      const std::size_t bytes = static_cast<std::size_t>(p.n) * p.k;
      const int copies = static_cast<int>(std::min<std::size_t>(bench.pool_bytes / bytes, 24));
      const bench::Timing t = bench::replay(
          [&](cudaStream_t stream) {
            for (int i = 0; i < copies; ++i) {
              const Fp8BlockWeights w{bench.pool + i * bytes, reinterpret_cast<const float*>(bench.x), p.n, p.k};
              CHECK_CUDA(fp8_block_linear(bench.x, w, bench.y, m, bench.workspace, stream, true));
            }
          },
          20);
      bench.print(std::string(p.name) + " fp8", m, static_cast<double>(bytes) * copies, t, copies);
    }
  for (const Product& p : kLayer) {
    unsigned char* at = bench.pool;
    const W4Weights w = place(at, p, 32);
    auto* out = reinterpret_cast<Bf16*>(bench.pool + bench.pool_bytes / 2);
    const bench::Timing t = bench::replay([&](cudaStream_t stream) { CHECK_CUDA(w4_dequantize(w, out, stream)); }, 20);
    bench.print(std::string(p.name) + " dequantize g32 (r+w)", 0,
                static_cast<double>(bytes_of(p, 32)) + 2.0 * p.n * p.k, t, 1);
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  return 0;
}
