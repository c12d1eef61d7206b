// The vectorised inner loops of the CPU backend, one table of functions for each instruction set. Every function
// computes whole outputs by one fixed order of operations, so that a result depends neither on the instruction set nor
// on how rows are batched or split over threads.
#pragma once

#include <cstdint>

namespace qwenbench::backend::cpu {

/// Outputs of a Linear that are computed side by side; packed weights are stored in panels of so many.
inline constexpr int kPanel = 16;

/// K is summed in this many segments (of ceil(k / 8), in order within each), whose sums are added as a balanced tree. A
/// rank of a row-split Linear holds kSegments / ranks of them; the all-reduce is the upper part of the same tree.
inline constexpr int kSegments = 8;

/// One rank's weight of one Linear, packed: panels of 16 outputs, k by k. It stays in the checkpoint's precision.
struct PackedMatrix {
  enum class Form { kF32, kF16, kBF16, kInt4, kE4M3 };
  Form form = Form::kF32;
  int n = 0, k = 0;  // outputs and inputs on this rank
  int segments = kSegments;
  const std::uint8_t* data = nullptr;  // panels of k * 16 elements; int4: byte b of 8 holds lanes b and b + 8
  // int4: w = round((u - zero) * scale) to the scale's dtype; e4m3: w = code * scale.
  const std::int32_t* group_of_k = nullptr;  // int4 with an activation order; else group = k / group_size
  int group_size = 0, groups = 0;
  bool scale_is_f16 = false;              // else bf16
  const std::uint16_t* scales = nullptr;  // int4: [panel][group][16]
  const std::uint8_t* zeros = nullptr;    // int4: [panel][group][16]
  const float* block_scales = nullptr;    // e4m3: [panel][group][16]

  int panels() const { return (n + kPanel - 1) / kPanel; }
};

enum class MatmulActivation { kNone, kGeluTanh, kGeluErf };

/// y[m][n] = activation(x[m][k] W^T + bias[n]) for the panels [panel_begin, panel_end) of W.
struct MatmulArgs {
  const PackedMatrix* weight;
  const float* x;
  std::int64_t x_stride;
  int rows;
  float* y;
  std::int64_t y_stride;
  const float* bias = nullptr;
  MatmulActivation activation = MatmulActivation::kNone;
  float* scratch = nullptr;  // k * 16 floats
};

enum class CacheForm { kF32, kBF16, kE4M3 };

/// Attention keys come in tiles of 16 tokens: K transposed [head_dim][16], V [16][head_dim].
inline constexpr int kTokenTile = 16;

/// Rows of one query block against the keys of one KV head.
struct AttentionArgs {
  // Where the keys lie: tile i of the sequence is K at key_tile(i), V at value_tile(i).
  CacheForm form = CacheForm::kF32;
  const std::uint8_t* keys = nullptr;  // of this layer and head
  const std::uint8_t* values = nullptr;
  const std::int32_t* blocks = nullptr;  // block table; nullptr: tiles lie one after another
  int tiles_per_block = 1;
  std::int64_t block_stride = 0;   // bytes from one block to the next
  std::int64_t tile_stride = 0;    // bytes from one tile to the next within a block
  float k_scale = 1, v_scale = 1;  // e4m3 only
  int kv_length = 0;
  int head_dim = 0;  // a multiple of 16
  float scale = 1;   // of the scores
  // FP8 attention where prob_scale is above 0: weights are rounded to e4m3(weight / prob_scale), and outputs multiplied
  // by out_scale. q_rows hold codes as floats, k_scale and v_scale are 1: their product with q_scale is in `scale`, and
  // v_scale * prob_scale is out_scale.
  float prob_scale = 0, out_scale = 1;
  // Queries: row r reads q_rows[r] and writes out_rows[r], [head_dim] each; it sees keys 0..last_key[r].
  int rows = 0;  // at most kQueryBlock
  const float* const* q_rows = nullptr;
  float* const* out_rows = nullptr;
  const int* last_key = nullptr;
  float* scratch = nullptr;  // attention_scratch_floats(head_dim)
};

inline constexpr int kQueryBlock = 48;
inline constexpr int kTilesAtOnce = 8;
constexpr std::int64_t attention_scratch_floats(int head_dim) {
  return std::int64_t{2} * kTilesAtOnce * kTokenTile * head_dim + 2 * kQueryBlock * head_dim + 2 * kQueryBlock + 1024;
}

struct Kernels {
  const char* name;
  void (*matmul)(const MatmulArgs& args, int panel_begin, int panel_end);
  void (*attention)(const AttentionArgs& args);
  /// out = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float* out, int width, float eps);
  /// out = (x - mean) / sqrt(variance + eps) * weight + bias
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* out, int width, float eps);
  /// out = silu(gate) * up
  void (*swiglu)(const float* gate, const float* up, float* out, int width);
  /// What the cache stores for x: fp32 as it is, bf16(x), or e4m3(sat(bf16(x) / scale)).
  void (*encode)(CacheForm form, const float* x, float scale, std::uint8_t* out, int width);
  /// x = rotated halves: x1 cos - x2 sin, x2 cos + x1 sin; cos and sin [width / 2]
  void (*rope)(float* x, const float* cos, const float* sin, int width);
};

/// The best table that this processor can run; QWENBENCH_CPU_ISA=portable|avx2|avx512 chooses another (for tests).
const Kernels& kernels();

/// By name; nullptr where the processor cannot run it.
const Kernels* kernels(const char* name);

}  // namespace qwenbench::backend::cpu
