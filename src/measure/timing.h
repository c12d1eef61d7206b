// The timing part of an experiment: the trials of all variants, interleaved.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "measure/runner.h"
#include "measure/target.h"
#include "report/result.h"
#include "workload/request.h"

namespace qwenbench::measure {

struct TimedVariant {
  std::string name;
  /// Makes the variant's target. It is destroyed before the next variant's is made, so that each has the whole KV
  /// memory to itself while it runs, as a server would.
  std::function<std::unique_ptr<Target>()> open;
  std::optional<DecodeTraffic> traffic = std::nullopt;
};

struct TimingOptions {
  int trials = 12;  // of each variant: fixed, the stop rule
  int max_concurrency = 0;
  int warmup_prompts = 0;  // sent to every target after it is made, at once, before its first trial; not recorded
  std::function<std::string(std::span<const std::int32_t>)> detokenize;
  std::function<void()> on_finished;  // after every request, warm-up left out
};

struct TimedSamples {
  std::vector<report::Trial> trials;
  std::vector<report::RequestRecord> requests;           // of all trials
  std::vector<std::vector<std::int32_t>> first_outputs;  // tokens of each request in trial 0
};

struct TimingOutcome {
  std::vector<TimedSamples> variants;
  bool cancelled = false;  // the trial that was under way is kept; its unfinished requests say so
};

/// Runs palindromic_schedule(variants, trials), the same requests in every trial. What a target has cached (prefixes,
/// pictures) is dropped before every trial.
TimingOutcome run_timing(std::span<const TimedVariant> variants, std::span<const workload::Request> requests,
                         const TimingOptions& options);

/// Greedy decoding of a variant against the reference's: for every request (the first of each id), tokens compared (the
/// longer of both) and the length of the common prefix, as quality requests without scored tokens; ids begin "greedy/".
std::vector<report::QualityRequest> compare_greedy(std::span<const workload::Request> requests,
                                                   const TimedSamples& reference, const TimedSamples& variant);

}  // namespace qwenbench::measure
