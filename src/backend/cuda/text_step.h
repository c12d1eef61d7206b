// One text step on a GPU: its index arrays, angles and features, and the operations that only text has.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/cuda/kv_cache.h"
#include "backend/cuda/rank_context.h"
#include "backend/cuda/step_arrays.h"
#include "kernels/decode_attention.h"

namespace qwenbench::backend::cuda {

/// Merged features and DeepStack levels of one picture, [tokens, width] each.
struct CudaVisualFeatures : VisualFeatures {
  ~CudaVisualFeatures() override { cudaSetDevice(device); }
  int device = 0, tokens = 0, width = 0;
  std::vector<DeviceArray<__nv_bfloat16>> levels;
};

struct EmbeddingShard {
  DeviceArray<__nv_bfloat16> rows;  // [count, width]
  int first_id = 0, count = 0, width = 0;
};

/// Kept from step to step, so that addresses stay.
struct TextStep {
  const StepInput* input = nullptr;
  CudaKvCache* cache = nullptr;
  StepArrays arrays;
  DeviceArray<float> cos, sin;                       // [tokens][head_dim / 2]
  std::vector<DeviceArray<__nv_bfloat16>> features;  // by level: the step's spans, one after another
  DeviceArray<std::byte> attention_workspace, prefill_workspace;
  DeviceArray<__nv_bfloat16> observed_k, observed_v;  // [tokens, kv_heads * head_dim], where somebody observes
  int max_model_len = 0;                              // bounds the split of a captured decode
  bool captured = false;
  float attended_factor = 1;  // what the next attention multiplies its outputs by

  /// Whether every row is a token of a sequence of its own, and none of a picture.
  bool decodes() const { return arrays.prefill.count == 0 && arrays.decode.count > 0 && !arrays.has_visual; }
  /// Features of the rows of a buffer, or none.
  RowFeatures row_features(int level, graph::Rows rows) const;
};

/// Memory for the step's features, by level; then the copies of each picture's rows.
void reserve_features(TextStep& step, int levels, int width);
void gather_features(TextStep& step, std::span<const std::shared_ptr<const VisualFeatures>> pictures, int width,
                     cudaStream_t stream);

/// Queues what decode attention of a group of sequences does in each layer, before the first of them.
void plan_decode(const RankContext& context, const TextStep& step, const SequenceGroup& sequences);

void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::Embed& op,
         const EmbeddingShard& embedding);
void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::PlaceVisual& op);
void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::QkNormRopeAppend& op);
void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::PagedAttention& op);
/// Both, one behind the other, as one kernel's arguments; none where the step is no plain decode, or observed.
std::optional<kernels::DecodeAttention> as_one(const RankContext& context, Buffers& buffers, const TextStep& step,
                                               const graph::QkNormRopeAppend& append,
                                               const graph::PagedAttention& attention);
void run(RankContext& context, Buffers& buffers, TextStep& step, const graph::SelectOutputs& op);

}  // namespace qwenbench::backend::cuda
