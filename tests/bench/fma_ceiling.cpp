#include "fma_ceiling.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/kernels.h"
#include "base/thread_pool.h"

namespace qwenbench::bench {
namespace {

constexpr int kChains = 12;  // 4 cycles of latency on 2 units need 8
constexpr int kSteps = 200000;

volatile float sink;  // the compiler must not leave a chain out

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void chains_avx512() {
  __m512 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.999f), summand = _mm512_set1_ps(0.001f);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], factor, summand);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sink = _mm512_cvtss_f32(sum[i]);
}

__attribute__((target("avx2,fma"))) void chains_avx2() {
  __m256 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999f), summand = _mm256_set1_ps(0.001f);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], factor, summand);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sink = _mm256_cvtss_f32(sum[i]);
}
#endif

/// As portable kernels multiply and add: an instruction each, on the four lanes that every 64-bit processor has.
void chains_portable() {
  using Float4 = float __attribute__((vector_size(16)));
  Float4 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = Float4{} + static_cast<float>(i);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * 0.999f + 0.001f;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sink = sum[i][0];
}

struct Chains {
  void (*run)();
  int lanes;
};

Chains chains_of(std::string_view isa) {
#if defined(__x86_64__)
  if (isa == "avx512") return {chains_avx512, 16};
  if (isa == "avx2") return {chains_avx2, 8};
#endif
  return {chains_portable, 4};
}

}  // namespace

double multiply_add_gflops(int threads) {
  constexpr int kRuns = 101;
  const Chains chains = chains_of(backend::cpu::kernels().name);
  ThreadPool pool(threads);
  std::vector<double> rates(static_cast<std::size_t>(pool.size()));
  pool.run([&](int thread) {
    std::vector<double> runs;
    for (int run = 0; run < kRuns; ++run) {
      const auto start = std::chrono::steady_clock::now();
      chains.run();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      runs.push_back(2e-9 * kSteps * kChains * chains.lanes / seconds.count());
    }
    std::nth_element(runs.begin(), runs.begin() + kRuns / 2, runs.end());
    rates[thread] = runs[kRuns / 2];
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

}  // namespace qwenbench::bench
