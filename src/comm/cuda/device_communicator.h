// Collectives between GPUs, one object a rank, queued on that rank's stream. Every rank makes the same calls, of the
// same sizes, in the same order, from its own thread with its device current. CUDA graphs that captured them must be
// destroyed before the communicator.
//
// A kernel that waits for a peer holds its device. Between the first collective of a step and synchronize(), a rank
// must do nothing that may wait for a device or the driver's locks: take or free memory (a peer's page tables follow),
// copy from or to pageable memory, load a kernel. Otherwise the peer's launches may wait for it, and it for them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "kernels/add_norm.h"

namespace qwenbench::comm {

class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // "p2p" | "nccl" | "host"

  /// Whether the calls only queue work, so that a CUDA graph can replay them.
  virtual bool can_be_captured() const { return true; }

  /// bf16 values [count], 16-byte aligned, become their sum over ranks: the same bits on every rank.
  virtual void all_reduce(__nv_bfloat16* values, std::size_t count, cudaStream_t stream) = 0;

  /// out [rows, ranks, row_bytes]: out[row][r] = rank r's mine[row]: the concatenation of columns. Of bf16 or fp32
  /// values (a NaN stays some NaN).
  virtual void all_gather(const void* mine, int rows, std::size_t row_bytes, void* out, cudaStream_t stream) = 0;

  /// kernels::add_norm() where args.partial is this rank's part of a sum over ranks; afterwards its content is
  /// undefined. residual must hold the same bits on all ranks, and does so afterwards.
  virtual void all_reduce_add_norm(const kernels::AddNorm& args, cudaStream_t stream) = 0;

  /// Returns when the stream's work is done. Throws DeviceError where a peer did not come: after the time-out, or as
  /// soon as the host communicator is aborted. Use it instead of cudaStreamSynchronize(), which may wait for ever.
  virtual void synchronize(cudaStream_t stream) = 0;

  /// Throws DeviceError where collectives that have ended are known to have failed. For streams that were waited for
  /// in another way.
  virtual void check() = 0;

  /// That this rank has spent in collectives since the beginning, waiting for its peers and the fused addition and norm
  /// included; the stream must be done. nullopt: not measured.
  virtual std::optional<double> seconds() const { return std::nullopt; }
};

struct DeviceCommunicatorOptions {
  /// How long to wait for a peer: p2p: in one collective; nccl: in one synchronize(), the work of the stream included
  /// (at least a minute).
  double time_out_s = 5;
  /// p2p, more than three ranks: all_reduce_add_norm() of at least so many bytes is two-shot. 0: always, also for two.
  std::size_t two_shot_bytes = 512 << 10;
};

/// Over our own kernels; the ranks are threads of one process. A collective call, with this rank's device current; all
/// devices need peer access to each other, several ranks may share one. The host communicator is used here only, and
/// its abort() makes waiting kernels stop.
std::unique_ptr<DeviceCommunicator> make_p2p(std::shared_ptr<Communicator> host,
                                             const DeviceCommunicatorOptions& options = {});

/// Over NCCL; each rank has its own device. A collective call, with this rank's device current. Throws DeviceError
/// where this build has no NCCL.
std::unique_ptr<DeviceCommunicator> make_nccl(std::shared_ptr<Communicator> host,
                                              const DeviceCommunicatorOptions& options = {});
bool has_nccl();

/// Through pinned host memory and the host communicator: slow, but for any devices, also one that ranks share. Calls
/// return when they are done and cannot be captured. A collective call.
std::unique_ptr<DeviceCommunicator> make_host(std::shared_ptr<Communicator> host);

}  // namespace qwenbench::comm
