// One picture on its way through the vision tower of a GPU rank.
#pragma once

#include <vector>

#include "backend/cuda/rank_context.h"
#include "kernels/position_embedding.h"
#include "workload/request.h"

namespace qwenbench::backend::cuda {

/// Kept from picture to picture, so that memory is taken once.
struct VisionPass {
  DeviceArray<__nv_bfloat16> position_table;  // [side * side, hidden]
  int side = 0;
  DeviceArray<kernels::TableCorners> corners;  // [patches]
  DeviceArray<float> cos, sin;                 // [patches, head_dim / 2]
  DeviceArray<float> pixels;                   // [patches, patch_dim]
};

/// Queues what depends on the picture alone: pixels as bf16 into `patches`, table corners, angles.
void prepare(VisionPass& pass, const RankContext& context, const workload::Image& image, __nv_bfloat16* patches);

void run(RankContext& context, Buffers& buffers, VisionPass& pass, const graph::AddPositionEmbedding& op);
void run(RankContext& context, Buffers& buffers, VisionPass& pass, const graph::VisionRope& op);
void run(RankContext& context, Buffers& buffers, VisionPass& pass, const graph::VisionAttention& op);

}  // namespace qwenbench::backend::cuda
