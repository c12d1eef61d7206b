// From two rows of logits to what is kept of one token. The definitions are those of llama-perplexity --kl-divergence.
#pragma once

#include <cstdint>
#include <span>

#include "backend/token_score.h"
#include "base/thread_pool.h"

namespace qwenbench::quality {

using backend::TokenScore;

/// Rows [rows, vocab] of both, targets and out [rows]. Computed in double from the fp32 logits as
/// ln p_i = x_i - (max + ln sum exp(x_j - max)); KL = sum p_i (ln p_i - ln q_i), of which a rounding error below zero
/// is cut off. Equal rows give exactly 0. Rows are spread over the pool's threads; the result does not depend on them.
void compare_logits(std::span<const float> reference, std::span<const float> variant, int vocab,
                    std::span<const std::int32_t> targets, std::span<TokenScore> out, ThreadPool& pool);

}  // namespace qwenbench::quality
