#include <algorithm>
#include <vector>

#include "kernels/read_bandwidth.h"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 512, kUnroll = 4, kLaunches = 11;

/// Fills with bits that no two words share: memory of one value reads faster.
__global__ void fill_kernel(uint4* to, std::size_t count) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const unsigned x = static_cast<unsigned>(i) * 2654435761u;
    to[i] = make_uint4(x, x ^ 0x9e3779b9u, x * 747796405u, ~x);
  }
}

__global__ void __launch_bounds__(kThreads) read_kernel(const uint4* from, std::size_t count, unsigned* never) {
  const std::size_t block = static_cast<std::size_t>(kThreads) * kUnroll;
  unsigned all = 0;
  for (std::size_t base = blockIdx.x * block + threadIdx.x; base < count; base += gridDim.x * block) {
    uint4 value[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::size_t i = base + static_cast<std::size_t>(u) * kThreads;
      value[u] = i < count ? __ldcs(from + i) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) all |= value[u].x ^ value[u].y ^ value[u].z ^ value[u].w;
  }
  if (all == 0x1234567u) *never = all;  // keeps the loads
}

struct Timer {
  cudaEvent_t begin = nullptr, end = nullptr;
  ~Timer() {
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
  }
};

cudaError_t time_launches(const uint4* buffer, std::size_t count, unsigned* never, std::vector<float>& milliseconds) {
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  Timer timer;
  if (error == cudaSuccess) error = cudaEventCreate(&timer.begin);
  if (error == cudaSuccess) error = cudaEventCreate(&timer.end);
  for (int i = 0; i < kLaunches && error == cudaSuccess; ++i) {
    cudaEventRecord(timer.begin);
    read_kernel<<<processors * 4, kThreads>>>(buffer, count, never);
    cudaEventRecord(timer.end);
    error = cudaEventSynchronize(timer.end);
    float elapsed = 0;
    if (error == cudaSuccess) error = cudaEventElapsedTime(&elapsed, timer.begin, timer.end);
    milliseconds.push_back(elapsed);
  }
  return error;
}

}  // namespace

cudaError_t measure_read_bandwidth(std::size_t bytes, double& bytes_per_second) {
  const std::size_t count = bytes / sizeof(uint4);
  uint4* buffer = nullptr;
  unsigned* never = nullptr;
  cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&buffer), count * sizeof(uint4));
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void**>(&never), sizeof(unsigned));
  std::vector<float> milliseconds;
  if (error == cudaSuccess) {
    fill_kernel<<<1024, kThreads>>>(buffer, count);
    error = time_launches(buffer, count, never, milliseconds);
  }
  cudaFree(never);
  cudaFree(buffer);
  if (error != cudaSuccess) return error;
  std::sort(milliseconds.begin(), milliseconds.end());
  bytes_per_second = static_cast<double>(count * sizeof(uint4)) / (1e-3 * milliseconds[milliseconds.size() / 2]);
  return cudaSuccess;
}

}  // namespace qwenbench::kernels
