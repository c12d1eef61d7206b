// Cosines and sines of rotary position embeddings.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"

namespace qwenbench::backend {

/// Angles position * theta^(-2j / head_dim), fp32, kept for every position met so far.
class RopeTable {
 public:
  RopeTable(double theta, int dim);

  /// cos and sin [positions, dim / 2] of interleaved M-RoPE: pair j takes the position of axis H where j % 3 == 1 and
  /// j < 3 * section[1], of W where j % 3 == 2 and j < 3 * section[2], else of T.
  void fill(std::span<const std::array<std::int32_t, 3>> positions, const std::array<int, 3>& section,
            std::vector<float>& cos, std::vector<float>& sin);

 private:
  void grow(int positions);

  std::vector<float> inverse_frequency_;  // [dim / 2]
  std::vector<float> cos_, sin_;          // [positions, dim / 2]
};

/// 2-D RoPE of the vision tower: cos and sin [patches, head_dim / 2] in merge-block order. The first half of the angles
/// turns with the row, the second with the column: 10000^(-2j / (head_dim / 2)), j < head_dim / 4.
void vision_rope(int grid_h, int grid_w, int merge_size, int head_dim, std::vector<float>& cos,
                 std::vector<float>& sin);

}  // namespace qwenbench::backend
