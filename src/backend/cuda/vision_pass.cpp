#include "backend/cuda/vision_pass.h"

#include "backend/position_table.h"
#include "backend/rope_table.h"
#include "kernels/activation.h"
#include "kernels/vision_attention.h"
#include "kernels/vision_rope.h"

namespace qwenbench::backend::cuda {
namespace {

/// From pageable memory: the call returns when the host may change `from`.
template <class T>
void send(DeviceArray<T>& to, const std::vector<T>& from, cudaStream_t stream) {
  to.reserve(from.size());
  QWENBENCH_CUDA(cudaMemcpyAsync(to.get(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
}

std::vector<kernels::TableCorners> corners_of(int grid_h, int grid_w, int merge, int side) {
  const auto rows = table_positions(grid_h, side), columns = table_positions(grid_w, side);
  std::vector<kernels::TableCorners> corners;
  corners.reserve(static_cast<std::size_t>(grid_h) * grid_w);
  const auto add = [&](const TablePosition& y, const TablePosition& x) {
    corners.push_back(
        {{y.floor * side + x.floor, y.floor * side + x.ceil, y.ceil * side + x.floor, y.ceil * side + x.ceil},
         {(1 - y.weight) * (1 - x.weight), (1 - y.weight) * x.weight, y.weight * (1 - x.weight), y.weight * x.weight}});
  };
  for (int block_row = 0; block_row < grid_h; block_row += merge)
    for (int block_column = 0; block_column < grid_w; block_column += merge)
      for (int i = 0; i < merge; ++i)
        for (int j = 0; j < merge; ++j) add(rows[block_row + i], columns[block_column + j]);
  return corners;
}

}  // namespace

void prepare(VisionPass& pass, const RankContext& context, const workload::Image& image, __nv_bfloat16* patches) {
  const auto& config = context.plan.config.vision;
  const cudaStream_t stream = context.stream;
  send(pass.corners, corners_of(image.grid_h, image.grid_w, config.spatial_merge_size, pass.side), stream);
  std::vector<float> cos, sin;
  vision_rope(image.grid_h, image.grid_w, config.spatial_merge_size, config.head_dim(), cos, sin);
  send(pass.cos, cos, stream);
  send(pass.sin, sin, stream);
  const auto count = static_cast<std::size_t>(image.grid_h) * image.grid_w * config.patch_dim();
  pass.pixels.reserve(count);
  QWENBENCH_CUDA(cudaMemcpyAsync(pass.pixels.get(), image.pixel_values.data(), count * sizeof(float),
                                 cudaMemcpyHostToDevice, stream));
  QWENBENCH_CUDA(kernels::to_bfloat16(pass.pixels.get(), static_cast<long long>(count), patches, stream));
  QWENBENCH_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
}

void run(RankContext& context, Buffers& buffers, VisionPass& pass, const graph::AddPositionEmbedding& op) {
  QWENBENCH_CUDA(kernels::add_position_embedding(buffers.data(op.x), pass.corners.get(), pass.position_table.get(),
                                                 buffers.rows(op.x), buffers.width(op.x), context.stream));
}

void run(RankContext& context, Buffers& buffers, VisionPass& pass, const graph::VisionRope& op) {
  QWENBENCH_CUDA(kernels::vision_rope(buffers.data(op.qkv), pass.cos.get(), pass.sin.get(), buffers.rows(op.qkv),
                                      context.plan.local_vision_heads, context.plan.config.vision.head_dim(),
                                      context.stream));
}

void run(RankContext& context, Buffers& buffers, VisionPass&, const graph::VisionAttention& op) {
  QWENBENCH_CUDA(kernels::vision_attention(buffers.data(op.qkv), buffers.data(op.out), buffers.rows(op.qkv),
                                           context.plan.local_vision_heads, context.plan.config.vision.head_dim(),
                                           context.stream));
}

}  // namespace qwenbench::backend::cuda
