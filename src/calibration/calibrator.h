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
#include "calibration/calibrate.h"
#include "calibration/estimators.h"
#include "calibration/statistics_file.h"

namespace qwenbench::calibration {

struct CalibratorOptions {
  EstimatorOptions estimator;
  StatisticsShape shape;          // query_heads 0: no q_scale is made
  int query_heads = 0;            // of the model
  std::vector<float> key_bounds;  // key_norm_bounds(), for method "bound"
  int look_every = 16;            // requests
  int settle_after = 64;          // requests, at the least; 0: the whole set is always used
  double settled_change = 0.01;   // settled: the second half of the requests seen moved no scale further (relative)
  int attention_requests = 16;    // method attention_mse: whole requests whose attention is computed again
  std::optional<std::filesystem::path>
      state;                   // kept up to date after every look; to be deleted when the scales are safe
  std::string state_key;       // model, set and settings
  ThreadPool* pool = nullptr;  // method attention_mse
  std::function<void(int requests)> on_finished;
};

/// How the scales moved.
struct Convergence {
  int requests = 0;
  std::int64_t tokens = 0;
  double change = 0;  // largest relative one of any scale since the look before; 0 at the first
  int layer = 0;      // where
};

struct Calibration {
  ScaleSet scales;  // empty where cancelled
  std::unique_ptr<KvStatistics> statistics;
  std::vector<Convergence> trace;
  int requests = 0;      // seen
  int resumed_from = 0;  // requests that an earlier run had seen
  bool settled = false;  // ended before the end of the set
  bool cancelled = false;
};

/// Throws InputError: an empty set, and all that collect_statistics() throws.
Calibration calibrate(const OpenRun& open, std::span<const workload::Request> requests,
                      const CalibratorOptions& options);

/// 0 ... count - 1 so that every beginning is spread over the whole: 0, 4, 2, 6, 1, 5, 3, 7.
std::vector<std::size_t> covering_order(std::size_t count);

}  // namespace qwenbench::calibration
