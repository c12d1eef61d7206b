// The activation matrices of one program on a GPU, bf16.
#pragma once

#include <cuda_bf16.h>

#include <vector>

#include "backend/cuda/device_memory.h"
#include "graph/plan.h"

namespace qwenbench::backend::cuda {

class Buffers {
 public:
  explicit Buffers(const graph::Program& program) : program_(program), data_(program.buffers.size()) {}

  /// Rows of the step at hand. Returns whether any buffer moved.
  bool set_rows(graph::Rows kind, int rows) {
    rows_[static_cast<int>(kind)] = rows;
    bool moved = false;
    for (std::size_t i = 0; i < data_.size(); ++i) {
      if (program_.buffers[i].rows != kind) continue;
      moved |= data_[i].reserve(static_cast<std::size_t>(rows) * program_.buffers[i].width);
    }
    return moved;
  }

  __nv_bfloat16* data(graph::BufferId id) const { return data_[id].get(); }
  int rows(graph::BufferId id) const { return rows_[static_cast<int>(program_.buffers[id].rows)]; }
  graph::Rows kind(graph::BufferId id) const { return program_.buffers[id].rows; }
  int width(graph::BufferId id) const { return program_.buffers[id].width; }

 private:
  const graph::Program& program_;
  std::vector<DeviceArray<__nv_bfloat16>> data_;
  int rows_[4] = {};
};

}  // namespace qwenbench::backend::cuda
