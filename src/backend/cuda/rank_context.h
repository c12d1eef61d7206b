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

  /// Between taking memory and queueing collectives: freeing memory waits for the whole device, which another rank's
  /// kernel may hold that waits for this rank (where ranks share a device).
  void meet() const {
    if (comm) host_comm->barrier();
  }

  const __nv_bfloat16* bias_of(graph::LinearId id) const { return id < 0 ? nullptr : linears[id].bias.get(); }
};

/// Features that join rows of the residual: of one DeepStack level, by row.
struct RowFeatures {
  const __nv_bfloat16* features = nullptr;  // [features, width]; null: none
  const int* feature_of_row = nullptr;
};

// ---- operations that text and vision share ----

void run(RankContext& context, Buffers& buffers, const graph::Norm& op);
void run(RankContext& context, Buffers& buffers, const graph::Linear& op);
void run(RankContext& context, Buffers& buffers, const graph::AllReduce& op);
void run(RankContext& context, Buffers& buffers, const graph::SwiGlu& op);
void run(RankContext& context, Buffers& buffers, const graph::AllReduceAddNorm& op, const RowFeatures& features);

}  // namespace qwenbench::backend::cuda
