// What the kernels' benchmarks share: errors, random memory, and the time of a graph's replays.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace qwenbench::kernels::bench {

inline void check(cudaError_t error, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK_CUDA(call) qwenbench::kernels::bench::check((call), __FILE__, __LINE__)

/// Random bits; `mask` and `base` make them bf16 pairs of moderate size where they are scales or activations.
__global__ inline void fill(unsigned* to, std::size_t words, unsigned mask, unsigned base, unsigned seed) {
  for (std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x; i < words;
       i += static_cast<std::size_t>(gridDim.x) * blockDim.x) {
    unsigned v = static_cast<unsigned>(i) + seed;
    v ^= v >> 16, v *= 0x7feb352dU, v ^= v >> 15, v *= 0x846ca68bU;
    to[i] = ((v ^ v >> 16) & mask) | base;
  }
}

/// Microseconds of a replay.
struct Timing {
  double median, p10, p90;
  double spread() const { return (p90 - p10) / median; }
};

/// Times one after another, by events, of what `work` puts into the stream, captured as a graph.
inline Timing replay(const std::function<void(cudaStream_t)>& work, int replays) {
  constexpr int kWarmUp = 3;
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaDeviceSynchronize());
  work(stream);  // libraries and kernels set themselves up
  CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work(stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  std::vector<double> us;
  for (int i = 0; i < kWarmUp + replays; ++i) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(exec, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    float ms = 0;
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= kWarmUp) us.push_back(ms * 1e3);
  }
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaGraphExecDestroy(exec));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::sort(us.begin(), us.end());
  return {us[us.size() / 2], us[us.size() / 10], us[us.size() * 9 / 10]};
}

}  // namespace qwenbench::kernels::bench
