#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>

#include "base/cuda_check.h"
#include "comm/cuda/bootstrap.h"
#include "comm/cuda/device_communicator.h"

namespace qwenbench::comm {
namespace {

using Clock = std::chrono::steady_clock;

/// NVLink multicast stays off unless the user wants it: it needs privileges that many machines do not give.
void leave_multicast_off() {
  static std::once_flag once;
  std::call_once(once, [] { setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0); });
}

ncclUniqueId share_id(Communicator& host) {
  ncclUniqueId id = {};
  if (host.rank() == 0) {
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) throw DeviceError(fmt::format("NCCL: {}", ncclGetErrorString(result)));
  }
  return gather_objects(host, id)[0];
}

/// The communicator does not block: a call that has to wait for a peer returns ncclInProgress, and it is here that we
/// wait, look at the clock, and abort.
class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(std::shared_ptr<Communicator> host, const DeviceCommunicatorOptions& options)
      : host_(std::move(host)), time_out_(std::max(60.0, options.time_out_s)) {
    leave_multicast_off();
    host_->on_abort([flag = std::weak_ptr<std::atomic<bool>>(stop_)] {
      if (const auto alive = flag.lock()) *alive = true;
    });
    const ncclUniqueId id = share_id(*host_);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    finish(ncclCommInitRankConfig(&comm_, host_->size(), id, host_->rank(), &config));
  }

  /// Not ncclCommDestroy(), which waits for the peers.
  ~NcclCommunicator() override { end(); }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string name() const override { return "nccl"; }

  void all_reduce(__nv_bfloat16* values, std::size_t count, cudaStream_t stream) override {
    require_alive();
    finish(ncclAllReduce(values, values, count, ncclBfloat16, ncclSum, comm_, stream));
  }

  void all_gather(const void* mine, int rows, std::size_t row_bytes, void* out, cudaStream_t stream) override {
    require_alive();
    auto* const to = static_cast<char*>(out);
    if (rows == 1) {
      finish(ncclAllGather(mine, to, row_bytes, ncclChar, comm_, stream));
      return;
    }
    // NCCL puts one rank's rows together; out has them side by side.
    const std::size_t part = rows * row_bytes;
    gathered_.reserve(part * size());
    finish(ncclAllGather(mine, gathered_.data, part, ncclChar, comm_, stream));
    for (int r = 0; r < size(); ++r) {
      QWENBENCH_CUDA(cudaMemcpy2DAsync(to + r * row_bytes, size() * row_bytes, gathered_.data + r * part, row_bytes,
                                       row_bytes, rows, cudaMemcpyDeviceToDevice, stream));
    }
  }

  void all_reduce_add_norm(const kernels::AddNorm& args, cudaStream_t stream) override {
    const std::size_t count = static_cast<std::size_t>(args.rows) * args.width;
    all_reduce(const_cast<__nv_bfloat16*>(args.partial), count, stream);
    QWENBENCH_CUDA(kernels::add_norm(args, stream));
  }

  void synchronize(cudaStream_t stream) override {
    const auto start = Clock::now();
    for (;;) {
      const cudaError_t state = cudaStreamQuery(stream);
      if (state == cudaSuccess) break;
      if (state != cudaErrorNotReady) QWENBENCH_CUDA(state);
      watch(start);
      std::this_thread::yield();
    }
    check();
  }

  void check() override {
    require_alive();
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(comm_, &state);
    if (state != ncclSuccess && state != ncclInProgress) fail(state);
  }

 private:
  struct Scratch {
    ~Scratch() { cudaFree(data); }
    void reserve(std::size_t bytes) {
      if (bytes <= size) return;
      QWENBENCH_CUDA(cudaFree(std::exchange(data, nullptr)));
      QWENBENCH_CUDA(cudaMalloc(reinterpret_cast<void**>(&data), bytes));
      size = bytes;
    }
    char* data = nullptr;
    std::size_t size = 0;
  };

  void require_alive() const {
    if (!comm_) throw DeviceError("NCCL was stopped after an earlier failure; load the model again");
  }

  /// Waits until a call that may be in progress has been carried out.
  void finish(ncclResult_t result) {
    const auto start = Clock::now();
    while (result == ncclInProgress) {
      watch(start);
      std::this_thread::yield();
      ncclCommGetAsyncError(comm_, &result);
    }
    if (result != ncclSuccess) fail(result);
  }

  /// Throws where waiting since `start` has become pointless.
  void watch(Clock::time_point start) {
    if (stop_->load()) {
      end();
      throw DeviceError(
          fmt::format("rank {} stopped waiting in NCCL because another rank failed; see its error", rank()));
    }
    if (Clock::now() - start > std::chrono::duration<double>(time_out_)) {
      end();
      throw DeviceError(
          fmt::format("rank {} waited {:g} s in NCCL for a rank that did not come; see whether another program holds "
                      "that GPU, then load the model again",
                      rank(), time_out_));
    }
    if (!comm_) return;
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(comm_, &state);
    if (state != ncclSuccess && state != ncclInProgress) fail(state);
  }

  [[noreturn]] void fail(ncclResult_t result) {
    const std::string why = comm_ ? one_line(ncclGetLastError(comm_)) : "";
    end();
    throw DeviceError(fmt::format("NCCL: {}{}{}; NCCL_DEBUG=INFO says more", ncclGetErrorString(result),
                                  why.empty() ? "" : ": ", why));
  }

  /// Ends kernels that still wait.
  void end() {
    if (comm_) ncclCommAbort(std::exchange(comm_, nullptr));
  }

  std::shared_ptr<Communicator> host_;
  const double time_out_;
  std::shared_ptr<std::atomic<bool>> stop_ = std::make_shared<std::atomic<bool>>(false);
  ncclComm_t comm_ = nullptr;
  Scratch gathered_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_nccl(std::shared_ptr<Communicator> host,
                                              const DeviceCommunicatorOptions& options) {
  try {
    return std::make_unique<NcclCommunicator>(host, options);
  } catch (...) {
    host->abort();
    throw;
  }
}

bool has_nccl() { return true; }

}  // namespace qwenbench::comm
