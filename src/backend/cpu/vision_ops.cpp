#include "backend/cpu/vision_ops.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "backend/position_table.h"

namespace qwenbench::backend::cpu {
namespace {

/// Head layout of the tower's qkv buffer, and heads padded to whole vectors.
struct Heads {
  int heads, dim, padded;
  std::int64_t width;  // of a qkv row
};

Heads heads_of(const RankContext& context) {
  const int dim = context.plan.config.vision.head_dim(), heads = context.plan.local_vision_heads;
  return {heads, dim, (dim + kTokenTile - 1) / kTokenTile * kTokenTile, std::int64_t{3} * heads * dim};
}

/// Q, K and V of one head, rearranged for the attention kernel; padding is zero and adds nothing.
struct HeadTiles {
  AlignedVector<float> q, out;        // [tokens, padded]
  AlignedVector<float> keys, values;  // tiles [padded][16] and [16][padded]
};

void fill_tiles(HeadTiles& tiles, const Heads& h, const float* qkv, int head, int tokens) {
  const int tile_count = (tokens + kTokenTile - 1) / kTokenTile;
  const std::size_t tile_floats = static_cast<std::size_t>(h.padded) * kTokenTile;
  tiles.q.assign(static_cast<std::size_t>(tokens) * h.padded, 0);
  tiles.out.resize(tiles.q.size());
  tiles.keys.assign(tile_count * tile_floats, 0);
  tiles.values.assign(tile_count * tile_floats, 0);
  for (int t = 0; t < tokens; ++t) {
    const float* q = qkv + t * h.width + head * h.dim;
    const float* k = q + h.heads * h.dim;
    const float* v = k + h.heads * h.dim;
    const std::size_t tile = static_cast<std::size_t>(t / kTokenTile) * tile_floats,
                      lane = static_cast<std::size_t>(t % kTokenTile);
    for (int i = 0; i < h.dim; ++i) {
      tiles.q[static_cast<std::size_t>(t) * h.padded + i] = q[i];
      tiles.keys[tile + static_cast<std::size_t>(i) * kTokenTile + lane] = k[i];
      tiles.values[tile + lane * h.padded + i] = v[i];
    }
  }
}

void attend_block(const RankContext& context, HeadTiles& tiles, const Heads& h, int tokens, int begin, float* scratch) {
  const float* q_rows[kQueryBlock];
  float* out_rows[kQueryBlock];
  int last_key[kQueryBlock];
  const int rows = std::min(kQueryBlock, tokens - begin);
  for (int r = 0; r < rows; ++r) {
    q_rows[r] = tiles.q.data() + std::int64_t{begin + r} * h.padded;
    out_rows[r] = tiles.out.data() + std::int64_t{begin + r} * h.padded;
    last_key[r] = tokens - 1;
  }
  AttentionArgs args;
  args.keys = reinterpret_cast<const std::uint8_t*>(tiles.keys.data());
  args.values = reinterpret_cast<const std::uint8_t*>(tiles.values.data());
  args.tile_stride = std::int64_t{h.padded} * kTokenTile * static_cast<std::int64_t>(sizeof(float));
  args.kv_length = tokens;
  args.head_dim = h.padded;
  args.scale = 1.0f / std::sqrt(static_cast<float>(h.dim));
  args.rows = rows;
  args.q_rows = q_rows;
  args.out_rows = out_rows;
  args.last_key = last_key;
  args.scratch = scratch;
  context.kernels.attention(args);
}

}  // namespace

void run(RankContext& context, Activations& acts, const ImagePass& pass, const graph::AddPositionEmbedding& op,
         const PositionTable& table) {
  const int width = acts.width(op.x), merge = context.plan.config.vision.spatial_merge_size;
  const auto rows = table_positions(pass.grid_h, table.side), columns = table_positions(pass.grid_w, table.side);
  float* x = acts.data(op.x);
  const auto entry = [&](int row, int column) {
    return table.values.data() + (std::int64_t{row} * table.side + column) * width;
  };
  const auto add_patch = [&](int row, int column) {
    const TablePosition &y = rows[row], &z = columns[column];
    const float w00 = (1 - y.weight) * (1 - z.weight), w01 = (1 - y.weight) * z.weight;
    const float w10 = y.weight * (1 - z.weight), w11 = y.weight * z.weight;
    const float *e00 = entry(y.floor, z.floor), *e01 = entry(y.floor, z.ceil), *e10 = entry(y.ceil, z.floor),
                *e11 = entry(y.ceil, z.ceil);
    for (int i = 0; i < width; ++i) x[i] += ((e00[i] * w00 + e01[i] * w01) + e10[i] * w10) + e11[i] * w11;
    x += width;
  };
  for (int block_row = 0; block_row < pass.grid_h; block_row += merge)
    for (int block_column = 0; block_column < pass.grid_w; block_column += merge)
      for (int i = 0; i < merge; ++i)
        for (int j = 0; j < merge; ++j) add_patch(block_row + i, block_column + j);
}

void run(RankContext& context, Activations& acts, const ImagePass& pass, const graph::VisionRope& op) {
  const Heads h = heads_of(context);
  float* qkv = acts.data(op.qkv);
  context.for_items(acts.rows(op.qkv), h.width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (int head = 0; head < 2 * h.heads; ++head)  // queries, then keys
        context.kernels.rope(qkv + row * h.width + head * h.dim, pass.cos.data() + row * (h.dim / 2),
                             pass.sin.data() + row * (h.dim / 2), h.dim);
  });
}

void run(RankContext& context, Activations& acts, const graph::VisionAttention& op) {
  const Heads h = heads_of(context);
  const int tokens = acts.rows(op.qkv);
  const float* qkv = acts.data(op.qkv);
  float* out = acts.data(op.out);
  std::vector<HeadTiles> tiles(static_cast<std::size_t>(h.heads));
  context.pool.parallel_for(h.heads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = begin; head < end; ++head) fill_tiles(tiles[head], h, qkv, static_cast<int>(head), tokens);
  });
  const int blocks = (tokens + kQueryBlock - 1) / kQueryBlock;
  std::atomic<int> next{0};
  context.pool.run([&](int thread) {
    float* scratch = context.scratch_of(thread, attention_scratch_floats(h.padded));
    for (int i = next++; i < blocks * h.heads; i = next++)
      attend_block(context, tiles[i % h.heads], h, tokens, i / h.heads * kQueryBlock, scratch);
  });
  for (int t = 0; t < tokens; ++t)
    for (int head = 0; head < h.heads; ++head)
      std::copy_n(tiles[head].out.data() + std::int64_t{t} * h.padded, h.dim,
                  out + (std::int64_t{t} * h.heads + head) * h.dim);
}

}  // namespace qwenbench::backend::cpu
