// From hidden states to tokens or scores on a GPU: the logits of this rank's share of the vocabulary, reduced in place.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/rank_context.h"
#include "backend/token_score.h"
#include "kernels/logits.h"

namespace qwenbench::backend::cuda {

class Head {
 public:
  explicit Head(RankContext& context);

  /// Queues logits of rows of `hidden` [rows, hidden_size] and their largest; no memory is taken where the last
  /// reserve() was enough.
  void queue_top(const __nv_bfloat16* hidden, int rows);
  /// Makes a library load the kernel that queue_top() will want.
  void load_product(const __nv_bfloat16* hidden, int rows);
  /// Waits; the lowest id of the largest logit over all ranks, for the first tokens.size() rows of queue_top().
  void top(std::span<std::int32_t> tokens);

  /// Logits of hidden states in host memory, gathered from all ranks: out [rows, vocab], or empty.
  void logits(std::span<const float> hidden, int rows, std::span<float> out);

  /// Both models' logits, reduced; see Executor::compare.
  void compare(std::span<const float> reference, std::span<const float> variant, std::span<const std::int32_t> targets,
               std::span<TokenScore> out);

  /// Returns whether memory moved, so that captured graphs are stale.
  bool reserve(int rows);

 private:
  void compare_tile(std::span<const float> reference, std::span<const float> variant,
                    std::span<const std::int32_t> targets, std::span<TokenScore> out);
  /// Logits of host rows into `out` on the device.
  void compute(std::span<const float> hidden, int rows, float* out);

  RankContext& context_;
  graph::LinearId weight_;
  int width_;  // logits of one rank
  int first_id_;
  int hidden_size_;
  DeviceArray<float> logits_, other_logits_;  // [rows, width]
  DeviceArray<float> host_hidden_;
  DeviceArray<__nv_bfloat16> hidden_;
  DeviceArray<kernels::TopLogit> top_;
  PinnedArray<kernels::TopLogit> host_top_;
  DeviceArray<kernels::LogitSums> sums_;
  DeviceArray<int> targets_;
};

}  // namespace qwenbench::backend::cuda
