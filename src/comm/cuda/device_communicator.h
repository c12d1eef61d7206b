// Collectives between GPUs, one object a rank, queued on that rank's stream. Every rank makes the same calls in the same
// order. Host-side agreement (set-up, abort) goes through the host Communicator.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "comm/communicator.h"

namespace qwenbench::comm {

/// residual [rows, width] += sum over ranks of partial [rows, width] (+ bias [width]) (+ features of a row);
/// out = RMSNorm(residual) * weight. bf16, sums in fp32 in rank order, so that every rank holds the same bits.
struct AllReduceAddNorm {
  void* partial = nullptr;   // a buffer of symmetric(), or any other
  void* residual = nullptr;  // bf16
  void* out = nullptr;       // null: no norm
  const void* weight = nullptr;
  const void* bias = nullptr;             // added once; null: none
  const void* features = nullptr;         // [features, width] bf16; null: none
  const int* feature_of_row = nullptr;    // [rows], -1: none
  int rows = 0, width = 0;
  float eps = 0;
};

class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // "p2p" | "nccl"

  /// Device memory that peers can reach too, the same bytes on every rank; owned by this object. A plain buffer where
  /// the implementation needs no such thing. A collective call.
  virtual void* symmetric(std::size_t bytes) = 0;

  /// bf16 values [count] become the sum over ranks.
  virtual void all_reduce(void* values, std::size_t count, cudaStream_t stream) = 0;

  /// out[r * bytes ...] = rank r's `mine`.
  virtual void all_gather(const void* mine, void* out, std::size_t bytes, cudaStream_t stream) = 0;

  virtual void all_reduce_add_norm(const AllReduceAddNorm& args, cudaStream_t stream) = 0;

  /// Throws DeviceError where a kernel of this rank gave up waiting for a peer (time-out, or abort of the host
  /// communicator). To be called after the stream was synchronized.
  virtual void check() = 0;
};

}  // namespace qwenbench::comm
