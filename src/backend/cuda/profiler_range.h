// Named ranges (NVTX) that a profiler shows beside the GPU's timeline: kinds of steps, pictures, groups of decoder
// layers. Without a profiler a range costs a few instructions. A replayed CUDA graph is one range: its layers' were met
// while it was captured.
#pragma once

#include <nvtx3/nvtx3.hpp>
#include <optional>

#include "graph/plan.h"

namespace qwenbench::backend::cuda {

struct ProfilerDomain {
  static constexpr const char* name = "qwenbench";
};
using ProfilerRange = nvtx3::scoped_range_in<ProfilerDomain>;

/// While a text program is walked: one range of kLayers decoder layers after another, whose payload is the first layer.
class LayerRanges {
 public:
  static constexpr int kLayers = 8;
  explicit LayerRanges(const graph::Program& program) : ops_(program.ops) {}

  /// Call before each operation, in order. A layer begins with the product whose result QkNormRopeAppend takes.
  void before(std::size_t op) {
    if (op + 1 >= ops_.size()) return;
    const auto* first = std::get_if<graph::QkNormRopeAppend>(&ops_[op + 1]);
    if (!first || first->layer % kLayers != 0) return;
    range_.reset();
    range_.emplace("layers from", nvtx3::payload{first->layer});
  }

 private:
  const std::vector<graph::Op>& ops_;
  std::optional<ProfilerRange> range_;
};

}  // namespace qwenbench::backend::cuda
