// In which form a GPU keeps the weights of a Linear. It depends on shapes alone, so that the memory plan counts what
// the CUDA backend will take.
#pragma once

#include <cstdint>
#include <span>

#include "graph/plan.h"
#include "model/weights.h"

namespace qwenbench::backend {

using WeightForm = model::LinearSource::Kind;

/// How a module's weight is stored in a checkpoint.
struct StoredForm {
  WeightForm form = WeightForm::kDense;
  int group_size = 0;            // kInt4
  bool has_group_index = false;  // kInt4: groups in an order of their own
};

/// The form in which one rank can keep all parts as one matrix (stored[i]: of linear.parts[i]). bf16, kDense, is what
/// always works: for mixed forms, for a group index, for groups or blocks that the split over ranks cuts.
WeightForm gpu_form(const graph::LinearSpec& linear, std::span<const StoredForm> stored, int rank, int ranks);

/// Bytes of a matrix [n, k] in that form; kInt4: packed for the 4-bit kernels, rows and columns padded.
std::int64_t gpu_weight_bytes(WeightForm form, std::int64_t n, std::int64_t k, int group_size);

}  // namespace qwenbench::backend
