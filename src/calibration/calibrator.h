// A whole calibration: the set in an order of which every beginning covers it, a look at the scales after every few
// requests, an end where they have settled, and the scales.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "calibration/attention_probabilities.h"
#include "calibration/calibrate.h"
#include "calibration/convergence.h"
#include "calibration/estimators.h"
#include "calibration/statistics_file.h"

namespace qwenbench::calibration {

struct CalibratorOptions {
  EstimatorOptions estimator;
  StatisticsShape shape;          // query_heads 0: no q_scale is made
  int query_heads = 0;            // of the model
  std::vector<float> key_bounds;  // key_norm_bounds(), for method "bound"
  int look_every = 8;             // requests, at the most: a small set is looked at four times
  int settle_after = 32;          // requests, at the least; 0: the whole set is always used
  int attention_requests = 16;    // whole requests whose attention is computed again (attention_mse, probabilities)
  bool probabilities = false;     // look at those of attention; not of methods bound and vllm
  std::optional<std::filesystem::path>
      state;                   // kept up to date after every look; to be deleted when the scales are safe
  std::string state_key;       // model, set and settings
  ThreadPool* pool = nullptr;  // where attention is computed again
  std::function<void(int requests)> on_finished;
};

struct Calibration {
  ScaleSet scales;  // empty where cancelled
  std::unique_ptr<KvStatistics> statistics;
  /// How the scales moved; of attention_mse first those of absmax, from which its candidates are taken and by which the
  /// set ends early, then its own over the attention requests. Empty for bound and vllm.
  std::vector<Movement> movements;
  std::unique_ptr<AttentionProbabilities> probabilities;  // where asked for
  int requests = 0;                                       // seen; of vllm those that its step began
  int resumed_from = 0;                                   // requests that an earlier run had seen
  bool ended_early = false;                               // settled before the end of the set
  bool cancelled = false;
};

/// Throws InputError: an empty set, and all that collect_statistics() throws.
Calibration calibrate(const OpenRun& open, std::span<const workload::Request> requests,
                      const CalibratorOptions& options);

/// 0 ... count - 1 so that every beginning is spread over the whole: 0, 4, 2, 6, 1, 5, 3, 7.
std::vector<std::size_t> covering_order(std::size_t count);

}  // namespace qwenbench::calibration
