// What is kept of one scored token.
#pragma once

namespace qwenbench::backend {

/// How a variant predicts a token, against the reference. ln is natural; "target" is the dataset's token.
struct TokenScore {
  double kld = 0;             // KL(reference || variant), nats
  double ln_p = 0;            // ln of the target's probability: the variant's
  double ln_p_reference = 0;  // and the reference's
  double delta_p = 0;         // the target's probability: variant - reference
  bool same_top1 = false;     // both have the same largest logit (the lowest id where several are equal)
  bool hit = false;           // the variant's largest logit is the target's
  bool finite = true;         // false: a logit is NaN or infinite, and nothing above means anything
};

}  // namespace qwenbench::backend
