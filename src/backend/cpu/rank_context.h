// What every operation of one CPU rank works with: its weights, threads and activation buffers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_linear.h"
#include "base/aligned.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "graph/plan.h"

namespace qwenbench::backend::cpu {

struct NormWeights {
  std::vector<float> weight, bias;  // bias empty: RMSNorm
};

/// The activation matrices of one program, sized for the rows of the step at hand.
class Activations {
 public:
  explicit Activations(const graph::Program& program) : program_(program), data_(program.buffers.size()) {}

  void set_rows(graph::Rows kind, int rows);
  float* data(graph::BufferId id) { return data_[id].data(); }
  int rows(graph::BufferId id) const { return rows_[static_cast<int>(kind(id))]; }
  graph::Rows kind(graph::BufferId id) const { return program_.buffers[id].rows; }
  int width(graph::BufferId id) const { return program_.buffers[id].width; }

 private:
  const graph::Program& program_;
  std::vector<AlignedVector<float>> data_;
  int rows_[4] = {};
};

struct RankContext {
  RankContext(graph::Plan plan_, int rank_, int threads, std::shared_ptr<comm::Communicator> comm_)
      : plan(std::move(plan_)),
        rank(rank_),
        comm(std::move(comm_)),
        pool(threads),
        scratch(static_cast<std::size_t>(pool.size())) {}

  graph::Plan plan;
  int rank;
  std::shared_ptr<comm::Communicator> comm;
  ThreadPool pool;
  const Kernels& kernels = cpu::kernels();
  std::vector<PackedLinear> linears;
  std::vector<NormWeights> norms;
  std::vector<AlignedVector<float>> scratch;  // one a thread

  float* scratch_of(int thread, std::int64_t floats) {
    auto& mine = scratch[thread];
    if (static_cast<std::int64_t>(mine.size()) < floats) mine.resize(static_cast<std::size_t>(floats));
    return mine.data();
  }

  /// task(begin, end) over items of about `floats_each` work; work too small to share stays on this thread.
  void for_items(std::int64_t items, std::int64_t floats_each,
                 const std::function<void(std::int64_t, std::int64_t)>& task) {
    constexpr std::int64_t kWorthAThread = 8192;
    if (items * floats_each < kWorthAThread) {
      if (items > 0) task(0, items);
    } else {
      pool.parallel_for(items, task);
    }
  }
};

// ---- operations that text and vision share ----

void run(RankContext& context, Activations& acts, const graph::Norm& op);
void run(RankContext& context, Activations& acts, const graph::BeginResidual& op);
void run(RankContext& context, Activations& acts, const graph::Linear& op);
void run(RankContext& context, Activations& acts, const graph::AllReduce& op);
void run(RankContext& context, Activations& acts, const graph::SwiGlu& op);
void run(RankContext& context, Activations& acts, const graph::AllGather& op);

/// The features that join a row of the residual, or nullptr.
using FeatureOfRow = std::function<const float*(int level, graph::Rows rows, int row)>;
void run(RankContext& context, Activations& acts, const graph::AllReduceAddNorm& op, const FeatureOfRow& feature);

}  // namespace qwenbench::backend::cpu
