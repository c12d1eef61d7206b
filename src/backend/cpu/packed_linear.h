// One rank's share of a Linear, repacked from the checkpoint for the matrix product kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cpu/kernels.h"
#include "base/aligned.h"
#include "base/thread_pool.h"
#include "graph/plan.h"
#include "model/weights.h"

namespace qwenbench::backend::cpu {

/// One stored module, or this rank's rows of it. The vectors own what matrix points to.
struct PackedPart {
  PackedMatrix matrix;
  AlignedVector<std::uint8_t> data;
  AlignedVector<std::uint16_t> scales;
  AlignedVector<std::uint8_t> zeros;
  AlignedVector<float> block_scales;
  std::vector<std::int32_t> group_of_k;

  std::size_t bytes() const;
};

/// Parts are kept apart, because a checkpoint decides the form of each module for itself.
struct PackedLinear {
  std::vector<PackedPart> parts;
  std::vector<float> bias;  // [n], or empty
  int n = 0, k = 0;
  int panels = 0;

  std::size_t bytes() const;
};

/// Throws InputError where the sums of a row split cannot be cut at `ranks` (k or the group size does not divide).
PackedLinear pack_linear(const graph::LinearSpec& spec, const model::WeightSource& source, int rank, int ranks,
                         ThreadPool& pool);

}  // namespace qwenbench::backend::cpu
