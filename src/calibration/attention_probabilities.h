// What FP8 attention does to its probabilities P~ = exp(S - max S), which prob_scale divides before they become E4M3.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "calibration/kept_request.h"

namespace qwenbench::calibration {

/// Of one query head, at one prob_scale; shares are 0..1.
struct FlushedProbability {
  double entries = 0;  // share of the P~ that are stored as 0
  double mass = 0;     // share of the probability that they carry, the mean over queries: attention divides by the sum
                       // of the unrounded P~, so that the output lacks it
};

struct HeadProbabilities {
  int layer = 0, head = 0;  // a query head
  std::int64_t queries = 0;
  std::int64_t entries = 0;         // P~, over all queries
  float largest = 0;                // of any P~
  FlushedProbability unit, chosen;  // at prob_scale 1, and at kProbScale
};

/// Sums over requests, of which the sampled_positions() are looked at, with S in BF16's K and Q. A kernel that takes
/// tile after tile subtracts the largest S so far, and flushes no more than this.
class AttentionProbabilities {
 public:
  explicit AttentionProbabilities(const StatisticsShape& shape);

  void add(const KeptRequest& request, ThreadPool& pool);

  int requests() const { return requests_; }
  /// The most keys that any of the queries had.
  int longest() const { return longest_; }
  /// [layer][head]; nothing for a head that saw no query.
  std::vector<HeadProbabilities> heads() const;

 private:
  struct Sums {
    std::int64_t queries = 0, entries = 0;
    float largest = 0;
    std::int64_t unit_entries = 0, chosen_entries = 0;  // flushed
    double unit_mass = 0, chosen_mass = 0;              // flushed, in queries
  };
  void add_head(const KeptRequest& request, int layer, int head);

  StatisticsShape shape_;
  int requests_ = 0, longest_ = 0;
  std::vector<Sums> sums_;  // [layer][query head]
};

/// All heads together; `layer` and `head` say nothing.
HeadProbabilities all_heads(const std::vector<HeadProbabilities>& heads);

}  // namespace qwenbench::calibration
