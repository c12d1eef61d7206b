// Time of the all-reduce with addition and norm, by size: our kernels and NCCL, replayed from a graph, as in a decode
// step. A figure is the median over replays of the maximum over ranks, divided by the calls in the graph. With one GPU
// two ranks share it: that tells what the kernels cost without the link.
//
//   all_reduce_bench [width [rows]]        5120, and several, where none are given
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/cuda_check.h"
#include "base/cuda_devices.h"
#include "comm/cuda/choose.h"
#include "kernels/add_norm.h"

using namespace qwenbench;

namespace {

constexpr int kRanks = 2, kCalls = 32, kReplays = 60;

template <class T>
using OnDevice = std::unique_ptr<T, cudaError_t (*)(void*)>;

/// bf16 values around 1 / 16, different on each rank.
OnDevice<__nv_bfloat16> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  constexpr std::size_t kPeriod = 1 << 20;
  std::vector<std::uint16_t> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = i < kPeriod ? static_cast<std::uint16_t>(0x3d00 + random() % 0x100 + (random() % 2) * 0x8000)
                            : values[i - kPeriod];
  }
  void* data = nullptr;
  QWENBENCH_CUDA(cudaMalloc(&data, 2 * count));
  QWENBENCH_CUDA(cudaMemcpy(data, values.data(), 2 * count, cudaMemcpyHostToDevice));
  return {static_cast<__nv_bfloat16*>(data), cudaFree};
}

/// fp32 values, random but finite: two bf16 values make the bits of one.
OnDevice<float> random_wide_values(std::size_t count, unsigned seed) {
  return {reinterpret_cast<float*>(random_values(2 * count, seed).release()), cudaFree};
}

/// Milliseconds of one replay of kCalls calls, each time anew; `before` lines the ranks up.
std::vector<float> replay(const std::function<void(cudaStream_t)>& call, const std::function<void()>& before,
                          const std::function<void(cudaStream_t)>& wait) {
  cudaStream_t stream;
  QWENBENCH_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaEvent_t begin, end;
  QWENBENCH_CUDA(cudaEventCreate(&begin));
  QWENBENCH_CUDA(cudaEventCreate(&end));
  before();
  call(stream);
  wait(stream);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  QWENBENCH_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kCalls; ++i) call(stream);
  QWENBENCH_CUDA(cudaStreamEndCapture(stream, &graph));
  QWENBENCH_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<float> times;
  for (int i = 0; i < kReplays; ++i) {
    before();
    QWENBENCH_CUDA(cudaEventRecord(begin, stream));
    QWENBENCH_CUDA(cudaGraphLaunch(exec, stream));
    QWENBENCH_CUDA(cudaEventRecord(end, stream));
    wait(stream);
    float ms = 0;
    QWENBENCH_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 5) times.push_back(ms);  // warm
  }
  before();
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  return times;
}

struct Spread {
  double median, low, high;  // microseconds a call
};

Spread spread_of(const std::vector<std::vector<float>>& ranks) {
  std::vector<float> slowest = ranks[0];
  for (const auto& times : ranks) {
    for (std::size_t i = 0; i < times.size(); ++i) slowest[i] = std::max(slowest[i], times[i]);
  }
  std::sort(slowest.begin(), slowest.end());
  const auto at = [&](double share) {
    return 1e3 * slowest[static_cast<std::size_t>(share * static_cast<double>(slowest.size() - 1))] / kCalls;
  };
  return {at(0.5), at(0.1), at(0.9)};
}

/// What a rank calls: the fused operation, or the sum alone.
enum class What { kAddNorm, kSum };

Spread measure(comm::AllReduce kind, const comm::DeviceCommunicatorOptions& options, What what, int rows, int width) {
  auto made = comm::make_threads(kRanks);
  std::vector<std::shared_ptr<comm::Communicator>> hosts;
  for (auto& host : made) hosts.push_back(std::move(host));
  std::vector<std::vector<float>> times(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        QWENBENCH_CUDA(cudaSetDevice(rank % cuda_device_count()));
        const std::size_t count = static_cast<std::size_t>(rows) * width;
        const auto partial = random_values(count, rank), out = random_values(count, 8),
                   weight = random_values(width, 9);
        const auto residual = random_wide_values(count, 7);
        const auto comm = comm::make_device_communicator(kind, hosts[rank], options);
        kernels::AddNorm args;
        args.partial = partial.get();
        args.residual = residual.get();
        args.out = out.get();
        args.weight = weight.get();
        args.eps = 1e-6f;
        args.rows = rows;
        args.width = width;
        times[rank] = replay(
            [&](cudaStream_t stream) {
              if (what == What::kAddNorm)
                comm->all_reduce_add_norm(args, stream);
              else
                comm->all_reduce(partial.get(), count, stream);
            },
            [&] { hosts[rank]->barrier(); }, [&](cudaStream_t stream) { comm->synchronize(stream); });
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
        hosts[rank]->abort();
        std::exit(5);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return spread_of(times);
}

/// add_norm() alone: what a single GPU pays.
Spread measure_add_norm(int rows, int width) {
  const std::size_t count = static_cast<std::size_t>(rows) * width;
  const auto partial = random_values(count, 6), out = random_values(count, 8), weight = random_values(width, 9);
  const auto residual = random_wide_values(count, 7);
  kernels::AddNorm args;
  args.partial = partial.get();
  args.residual = residual.get();
  args.out = out.get();
  args.weight = weight.get();
  args.eps = 1e-6f;
  args.rows = rows;
  args.width = width;
  return spread_of({replay([&](cudaStream_t stream) { QWENBENCH_CUDA(kernels::add_norm(args, stream)); }, [] {},
                           [](cudaStream_t stream) { QWENBENCH_CUDA(cudaStreamSynchronize(stream)); })});
}

void print(const Spread& s) { std::printf(" %9.2f (%.2f-%.2f)", s.median, s.low, s.high); }

}  // namespace

int main(int argc, char** argv) {
  const int width = argc > 1 ? std::atoi(argv[1]) : 5120;
  const int devices = cuda_device_count();
  if (devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  if (width < 8 || width % 8 != 0 || (argc > 2 && std::atoi(argv[2]) < 1)) {
    std::puts("usage: all_reduce_bench [width [rows]], width a multiple of 8");
    return 2;
  }
  const bool nccl = devices > 1 && comm::has_nccl();
  if (devices == 1) std::puts("ONE GPU, two ranks on it: no link is measured, and the ranks compete; NCCL is left out");
  std::printf("microseconds a call, median (10th-90th percentile) of %d replays of %d calls, the slower of %d ranks\n",
              kReplays - 5, kCalls, kRanks);
  std::printf("%7s %10s  %-22s %-22s %-22s %-22s %-22s %-22s\n", "rows", "KB", "add_norm, 1 GPU", "p2p one-shot",
              "p2p two-shot", "p2p sum alone", "nccl + add_norm", "nccl sum alone");
  const std::vector<int> sizes =
      argc > 2 ? std::vector<int>{std::atoi(argv[2])} : std::vector<int>{1, 4, 16, 32, 50, 128, 205, 1024, 8192};
  for (const int rows : sizes) {
    comm::DeviceCommunicatorOptions one_shot, two_shot;
    one_shot.two_shot_bytes = static_cast<std::size_t>(-1);
    two_shot.two_shot_bytes = 0;
    std::printf("%7d %10.1f ", rows, 2e-3 * rows * width);
    print(measure_add_norm(rows, width));
    print(measure(comm::AllReduce::kP2p, one_shot, What::kAddNorm, rows, width));
    print(measure(comm::AllReduce::kP2p, two_shot, What::kAddNorm, rows, width));
    print(measure(comm::AllReduce::kP2p, one_shot, What::kSum, rows, width));
    if (nccl) {
      print(measure(comm::AllReduce::kNccl, one_shot, What::kAddNorm, rows, width));
      print(measure(comm::AllReduce::kNccl, one_shot, What::kSum, rows, width));
    }
    std::puts("");
  }
}
