// The activation matrices of one program on a GPU: bf16, wide ones fp32.
#pragma once

#include <cuda_bf16.h>

#include <stdexcept>
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
      if (program_.buffers[i].rows == kind) moved |= data_[i].reserve(rows * row_bytes(static_cast<int>(i)));
    }
    return moved;
  }

  __nv_bfloat16* data(graph::BufferId id) const {
    return static_cast<__nv_bfloat16*>(of(id, graph::Precision::kNarrow));
  }
  float* wide(graph::BufferId id) const { return static_cast<float*>(of(id, graph::Precision::kWide)); }

  /// Of either precision.
  std::byte* bytes(graph::BufferId id) const { return data_[id].get(); }
  std::size_t row_bytes(graph::BufferId id) const {
    const bool is_wide = program_.buffers[id].precision == graph::Precision::kWide;
    return width(id) * (is_wide ? sizeof(float) : sizeof(__nv_bfloat16));
  }

  int rows(graph::BufferId id) const { return rows_[static_cast<int>(program_.buffers[id].rows)]; }
  graph::Rows kind(graph::BufferId id) const { return program_.buffers[id].rows; }
  int width(graph::BufferId id) const { return program_.buffers[id].width; }

 private:
  void* of(graph::BufferId id, graph::Precision precision) const {
    if (program_.buffers[id].precision != precision)
      throw std::logic_error("an operation met a buffer of a precision that it does not work on: " +
                             program_.buffers[id].name);
    return bytes(id);
  }

  const graph::Program& program_;
  std::vector<DeviceArray<std::byte>> data_;
  int rows_[4] = {};
};

}  // namespace qwenbench::backend::cuda
