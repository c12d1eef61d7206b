// What every operation of one GPU rank works with: its weights, stream and communicators.
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda/buffers.h"
#include "backend/cuda/device_linear.h"
#include "backend/cuda/linear_runner.h"
#include "comm/cuda/device_communicator.h"
#include "graph/plan.h"

namespace qwenbench::backend::cuda {

struct DeviceNorm {
  DeviceArray<__nv_bfloat16> weight, bias;  // bias empty: RMSNorm
};

struct RankContext {
  RankContext(graph::Plan plan_, int rank_, int device_, std::shared_ptr<comm::Communicator> host)
      : plan(std::move(plan_)), rank(rank_), device(device_), host_comm(std::move(host)) {}

  graph::Plan plan;
  int rank, device;
  std::shared_ptr<comm::Communicator> host_comm;   // the ranks' threads agree through it
  std::unique_ptr<comm::DeviceCommunicator> comm;  // null for one rank
  Stream stream;
  std::vector<DeviceLinear> linears;
  std::vector<DeviceNorm> norms;
  LinearRunner runner;

  /// Waits for the stream's work; throws DeviceError where a peer did not come.
  void synchronize() {
    if (comm)
      comm->synchronize(stream);
    else
      stream.synchronize();
  }

  /// Whether collectives are kernels that hold their device until all ranks have come.
  bool kernels_wait() const { return comm && comm->can_be_captured(); }

  /// Between what may wait for a device (taking memory, loading kernels; see DeviceCommunicator) and queueing
  /// collectives, whose kernels wait for the ranks that are still at it.
  void meet() const {
    if (kernels_wait()) host_comm->barrier();
  }

  const __nv_bfloat16* bias_of(graph::LinearId id) const { return id < 0 ? nullptr : linears[id].bias.get(); }
};

/// Features that join rows of the residual: of one DeepStack level, by row.
struct RowFeatures {
  const __nv_bfloat16* features = nullptr;  // [features, width]; null: none
  const int* feature_of_row = nullptr;
};

// ---- operations that text and vision share ----

Epilogue epilogue_of(const RankContext& context, const graph::Linear& op);

void run(RankContext& context, Buffers& buffers, const graph::Norm& op);
void run(RankContext& context, Buffers& buffers, const graph::BeginResidual& op);
void run(RankContext& context, Buffers& buffers, const graph::Linear& op);
void run(RankContext& context, Buffers& buffers, const graph::AllReduce& op);
void run(RankContext& context, Buffers& buffers, const graph::SwiGlu& op);
void run(RankContext& context, Buffers& buffers, const graph::AllReduceAddNorm& op, const RowFeatures& features);

}  // namespace qwenbench::backend::cuda
