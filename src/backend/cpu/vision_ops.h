// The operations of the vision tower that are not shared with the text decoder.
#pragma once

#include <vector>

#include "backend/cpu/rank_context.h"

namespace qwenbench::backend::cpu {

/// The picture under way.
struct ImagePass {
  int grid_h = 0, grid_w = 0;
  std::vector<float> cos, sin;  // [patches, head_dim / 2]
};

/// The learned table [side, side, width] for AddPositionEmbedding.
struct PositionTable {
  std::vector<float> values;
  int side = 0;
};

void run(RankContext& context, Activations& acts, const ImagePass& pass, const graph::AddPositionEmbedding& op,
         const PositionTable& table);
void run(RankContext& context, Activations& acts, const ImagePass& pass, const graph::VisionRope& op);
void run(RankContext& context, Activations& acts, const graph::VisionAttention& op);

}  // namespace qwenbench::backend::cpu
