// From two rows of logits to what is kept of one token. The definitions are those of llama-perplexity --kl-divergence.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace qwenbench::quality {

/// One scored token: how a variant predicts it, against the reference. ln is natural; "target" is the dataset's token.
struct TokenScore {
  double kld = 0;             // KL(reference || variant), nats
  double ln_p = 0;            // ln of the target's probability: the variant's
  double ln_p_reference = 0;  // and the reference's
  double delta_p = 0;         // the target's probability: variant - reference
  bool same_top1 = false;     // both have the same largest logit (the lowest id where several are equal)
  bool hit = false;           // the variant's largest logit is the target's
  bool finite = true;         // false: a logit is NaN or infinite, and nothing above means anything
};

/// Rows [rows, vocab] of both, targets and out [rows]. Computed in double from the fp32 logits as
/// ln p_i = x_i - (max + ln sum exp(x_j - max)); KL = sum p_i (ln p_i - ln q_i), of which a rounding error below zero
/// is cut off. Equal rows give exactly 0. Rows are spread over the pool's threads; the result does not depend on them.
void compare_logits(std::span<const float> reference, std::span<const float> variant, int vocab,
                    std::span<const std::int32_t> targets, std::span<TokenScore> out, ThreadPool& pool);

}  // namespace qwenbench::quality
