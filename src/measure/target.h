// What the runner drives: something that takes requests and answers with tokens, on a clock of its own. The engine is
// one; an HTTP server can be another.
#pragma once

#include <cstdint>
#include <vector>

#include "workload/request.h"

namespace qwenbench::measure {

using Ticket = std::int64_t;

/// One output token as the client sees it.
struct TargetToken {
  Ticket ticket;
  double time;  // seconds of the target's clock
  std::int32_t token;
  bool last;              // the request is finished with it
  int cached_tokens = 0;  // of its prompt, from the prefix cache (an HTTP server's usage.prompt_tokens_details)
};

/// One step of a target that has steps (an HTTP server reports none).
struct TargetStep {
  double begin, end;  // seconds of the target's clock
  int prefill_tokens;
  int decode_tokens;
  std::int64_t context_tokens;  // KV positions that decoding sequences read
};

struct TargetEvents {
  std::vector<TargetToken> tokens;
  std::vector<TargetStep> steps;

  void clear() {
    tokens.clear();
    steps.clear();
  }
};

/// Since the target was made.
struct TargetCounters {
  std::int64_t preemptions = 0;
  std::int64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;  // 0, 0 without prefix caching
  std::optional<double> energy_j = std::nullopt;                  // of the GPUs, any origin
  std::optional<bool> throttled = std::nullopt;                   // any GPU, at this moment
  std::vector<double> collective_seconds = {};                    // one a rank; empty: not measured
};

class Target {
 public:
  virtual ~Target() = default;

  /// Seconds of the target's clock: steady, any origin.
  virtual double now() = 0;

  /// Sends a request. Throws InputError where it can never run.
  virtual Ticket submit(const workload::Request& request) = 0;

  /// Replaces `events` by what happened since the last call. A busy target works until something happened, not much
  /// longer than one step; an idle one waits until `wake` (its clock) or a few milliseconds, whichever is sooner.
  virtual void poll(double wake, TargetEvents& events) = 0;

  virtual TargetCounters counters() const = 0;

  /// Drops what is under way, and what was cached.
  virtual void reset() = 0;
};

}  // namespace qwenbench::measure
