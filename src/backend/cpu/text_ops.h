// The operations of the text decoder that are not shared with the vision tower.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kv_cache.h"
#include "backend/cpu/rank_context.h"
#include "backend/rope_table.h"

namespace qwenbench::backend::cpu {

/// One rank's features of one picture: level 0 is the main merger's output, level i + 1 DeepStack level i.
class CpuVisualFeatures : public VisualFeatures {
 public:
  int tokens = 0, width = 0;
  std::vector<std::vector<float>> levels;  // [tokens, width] each

  const float* row(int level, int token) const { return levels[level].data() + std::size_t(token) * width; }
};

/// This rank's rows of the embedding table, as stored.
struct EmbeddingShard {
  model::TensorView view;
  AlignedVector<std::uint8_t> rows;
  int first_id = 0, count = 0, width = 0;
};

/// Everything that the operations need to know about the step under way.
struct TextStep {
  const StepInput* input = nullptr;
  CpuKvCache* cache = nullptr;
  std::vector<float> cos, sin;                           // [tokens, head_dim / 2]
  std::vector<std::int64_t> slots;                       // KV slot of every token
  std::vector<int> sequence_of_token;                    // index into input->sequences
  std::vector<std::uint8_t> is_image;                    // of every token
  std::vector<const CpuVisualFeatures*> picture_of_row;  // nullptr: text
  std::vector<int> feature_of_row;

  /// The token that row `row` of a buffer stands for.
  int token_of(graph::Rows rows, int row) const {
    return rows == graph::Rows::kOutputs ? input->output_rows[row] : row;
  }
};

/// Derives the per-token tables from the step's input.
void prepare(TextStep& step, const StepInput& input, CpuKvCache& cache,
             std::span<const std::shared_ptr<const VisualFeatures>> pictures, RopeTable& rope,
             const model::TextConfig& config);

void run(RankContext& context, Activations& acts, const TextStep& step, const graph::Embed& op,
         const EmbeddingShard& embedding);
void run(RankContext& context, Activations& acts, const TextStep& step, const graph::PlaceVisual& op);
void run(RankContext& context, Activations& acts, const TextStep& step, const graph::QkNormRopeAppend& op);
void run(RankContext& context, Activations& acts, const TextStep& step, const graph::PagedAttention& op);
void run(RankContext& context, Activations& acts, const TextStep& step, const graph::SelectOutputs& op);

}  // namespace qwenbench::backend::cpu
