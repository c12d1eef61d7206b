// What FP8 does to the output of attention, which is computed again with K or V rounded by one candidate scale after
// the other.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "calibration/kept_request.h"
#include "calibration/scales.h"

namespace qwenbench::calibration {

/// Candidate scales are those of `absmax` times 2^(1 - i / 4), i = 0 ... 20.
inline constexpr int kAttentionCandidates = 21;

/// Errors are summed over requests.
class AttentionError {
 public:
  /// `absmax` holds one scale a layer, or one a KV head.
  AttentionError(const StatisticsShape& shape, const ScaleSet& absmax);

  /// The squared error of the output at the request's sampled_positions().
  void add(const KeptRequest& request, ThreadPool& pool);

  /// The candidates with the least error so far: K with V exact, V with K exact.
  ScaleSet best_scales() const;

 private:
  struct Errors {
    std::vector<double> k, v;  // by candidate
  };

  void add_head(const KeptRequest& request, int layer, int kv_head);
  int best(int layer, int head, bool key) const;

  StatisticsShape shape_;
  ScaleSet absmax_;
  std::vector<Errors> errors_;  // [layer][KV head]
};

}  // namespace qwenbench::calibration
