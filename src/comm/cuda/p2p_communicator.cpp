#include <fmt/format.h>

#include "base/cuda_check.h"
#include "comm/cuda/device_communicator.h"
#include "comm/cuda/p2p_group.h"
#include "kernels/all_reduce_add_norm.h"

namespace qwenbench::comm {
namespace {

/// Of each source and buffer; a longer payload goes in several kernels. 24 MiB a peer in all, most of which stays in
/// the second-level cache.
constexpr long long kSlotBytes = 8 << 20;

class P2pCommunicator final : public DeviceCommunicator {
 public:
  P2pCommunicator(std::shared_ptr<Communicator> host, const DeviceCommunicatorOptions& options)
      : host_(std::move(host)), options_(options), group_(P2pGroup::join(*host_, kSlotBytes)) {
    exchange_ = group_->exchange_of(rank());
    exchange_.time_out_ns = static_cast<unsigned long long>(options.time_out_s * 1e9);
    int device = 0, processors = 0;
    QWENBENCH_CUDA(cudaGetDevice(&device));
    QWENBENCH_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    // Blocks wait only for the peers' blocks of equal index, and blocks start in that order: any grid makes progress
    // where each rank has one block running. Ranks that share a device must therefore never fill it, neither their
    // threads nor their registers: the rest is also for what a rank does before it comes here.
    const int sharing = group_->ranks_on_device_of(rank());
    exchange_.max_threads = sharing > 1 ? processors * 512 / sharing : processors * 2048;
    exchange_.overlap_next = sharing == 1;
    host_->on_abort([group = std::weak_ptr<P2pGroup>(group_)] {
      if (const auto alive = group.lock()) alive->abort();
    });
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string name() const override { return "p2p"; }

  void all_reduce(__nv_bfloat16* values, std::size_t count, cudaStream_t stream) override {
    QWENBENCH_CUDA(kernels::all_reduce(exchange_, values, static_cast<long long>(count), stream));
  }

  void all_gather(const void* mine, int rows, std::size_t row_bytes, void* out, cudaStream_t stream) override {
    QWENBENCH_CUDA(kernels::all_gather(exchange_, mine, rows, row_bytes, out, stream));
  }

  void all_reduce_add_norm(const kernels::AddNorm& args, cudaStream_t stream) override {
    const std::size_t bytes = 2 * static_cast<std::size_t>(args.rows) * args.width;
    const bool two_shot = options_.two_shot_bytes == 0 || (size() > 3 && bytes >= options_.two_shot_bytes);
    QWENBENCH_CUDA(kernels::all_reduce_add_norm(
        exchange_, args, two_shot ? kernels::AllReduceShape::kTwoShot : kernels::AllReduceShape::kOneShot, stream));
  }

  void synchronize(cudaStream_t stream) override {
    QWENBENCH_CUDA(cudaStreamSynchronize(stream));  // a waiting kernel ends by itself
    check();
  }

  void check() override {
    const bool timed_out = group_->gave_up(rank(), kernels::GaveUp::kTimeOut);
    if (!timed_out && !group_->gave_up(rank(), kernels::GaveUp::kAborted)) return;
    const int waited = timed_out ? rank() : group_->timed_out_rank();
    if (waited < 0) {
      throw DeviceError(
          fmt::format("rank {} stopped waiting in an all-reduce because another rank failed; see its error", rank()));
    }
    throw DeviceError(
        fmt::format("rank {} waited {:g} s in an all-reduce for a rank that did not come; see whether another program "
                    "holds that GPU, then load the model again",
                    waited, options_.time_out_s));
  }

  /// Behind the stream's work: the caller has synchronized.
  std::optional<double> seconds() const override { return group_->seconds(rank()); }

 private:
  std::shared_ptr<Communicator> host_;
  DeviceCommunicatorOptions options_;
  std::shared_ptr<P2pGroup> group_;
  kernels::PeerExchange exchange_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_p2p(std::shared_ptr<Communicator> host,
                                             const DeviceCommunicatorOptions& options) {
  try {
    return std::make_unique<P2pCommunicator>(host, options);
  } catch (...) {
    host->abort();
    throw;
  }
}

}  // namespace qwenbench::comm
