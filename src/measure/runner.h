// One trial: sends the requests of a workload to a target, as a client would, and records what comes back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "measure/target.h"
#include "report/result.h"
#include "workload/request.h"

namespace qwenbench::measure {

/// What decoding must read, against what the devices can: sums over ranks.
struct DecodeTraffic {
  double weight_bytes = 0;             // of one step
  double bytes_per_context_token = 0;  // of the KV cache
  double bytes_per_second = 0;         // that a kernel reads that does nothing else
};

struct TrialOptions {
  int trial = 0;     // number of this variant's trial
  int position = 0;  // place in the whole order
  /// Requests in flight at most; 0: no limit. A request is due at its arrival_s (0 in a closed loop), and sent when due
  /// and one of the slots is free: the wait for a slot is queue_time and not part of ttft.
  int max_concurrency = 0;
  std::optional<DecodeTraffic> traffic;                                  // gives the trial its bandwidth_share
  std::function<void()> on_finished;                                     // after every request: progress
  std::function<std::string(std::span<const std::int32_t>)> detokenize;  // called after the trial, never within it
};

struct TrialOutcome {
  report::Trial trial;
  std::vector<report::RequestRecord> requests;     // in the workload's order
  std::vector<std::vector<std::int32_t>> outputs;  // tokens of each
  bool cancelled = false;                          // by interrupted(): the requests cut short say so in `error`
};

/// The target must be idle. A request that the target refuses becomes a record with its error; a failure of the target
/// itself (DeviceError) is thrown.
TrialOutcome run_trial(Target& target, std::span<const workload::Request> requests, const TrialOptions& options);

}  // namespace qwenbench::measure
