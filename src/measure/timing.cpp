#include "measure/timing.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "measure/schedule.h"

namespace qwenbench::measure {
namespace {

using workload::Request;

std::vector<Request> warmup_of(std::span<const Request> requests, int count) {
  std::vector<Request> warmup;
  for (int i = 0; i < count && !requests.empty(); ++i) {
    warmup.push_back(requests[static_cast<std::size_t>(i) % requests.size()]);
    warmup.back().arrival_s = 0;
  }
  return warmup;
}

void keep(TrialOutcome&& outcome, TimedSamples& samples) {
  if (samples.trials.empty()) samples.first_outputs = std::move(outcome.outputs);
  samples.trials.push_back(outcome.trial);
  samples.requests.insert(samples.requests.end(), std::make_move_iterator(outcome.requests.begin()),
                          std::make_move_iterator(outcome.requests.end()));
}

}  // namespace

TimingOutcome run_timing(std::span<const TimedVariant> variants, std::span<const Request> requests,
                         const TimingOptions& options) {
  TimingOutcome outcome;
  outcome.variants.resize(variants.size());
  const std::vector<Request> warmup = warmup_of(requests, options.warmup_prompts);
  std::unique_ptr<Target> target;
  int open = -1;
  for (const ScheduledTrial& next : palindromic_schedule(static_cast<int>(variants.size()), options.trials)) {
    TrialOptions trial;
    trial.max_concurrency = options.max_concurrency;
    if (next.variant != open) {
      target.reset();
      target = variants[static_cast<std::size_t>(next.variant)].open();
      open = next.variant;
      outcome.cancelled = run_trial(*target, warmup, trial).cancelled;
      if (outcome.cancelled) break;
    }
    target->reset();
    trial.trial = next.trial;
    trial.traffic = variants[static_cast<std::size_t>(next.variant)].traffic;
    trial.position = next.position;
    trial.on_finished = options.on_finished;
    trial.detokenize = options.detokenize;
    TrialOutcome done = run_trial(*target, requests, trial);
    outcome.cancelled = done.cancelled;
    keep(std::move(done), outcome.variants[static_cast<std::size_t>(next.variant)]);
    if (outcome.cancelled) break;
  }
  return outcome;
}

std::vector<report::QualityRequest> compare_greedy(std::span<const Request> requests, const TimedSamples& reference,
                                                   const TimedSamples& variant) {
  std::vector<report::QualityRequest> compared;
  std::unordered_set<std::string> seen;
  const std::size_t count = std::min({requests.size(), reference.first_outputs.size(), variant.first_outputs.size()});
  for (std::size_t i = 0; i < count; ++i) {
    const std::vector<std::int32_t>& theirs = reference.first_outputs[i];
    const std::vector<std::int32_t>& mine = variant.first_outputs[i];
    if (theirs.empty() || mine.empty() || !seen.insert(requests[i].id).second) continue;
    const auto shorter = static_cast<std::ptrdiff_t>(std::min(theirs.size(), mine.size()));
    report::QualityRequest request;
    request.id = "greedy/" + requests[i].id;
    request.has_image = !requests[i].images.empty();
    request.greedy_tokens = static_cast<int>(std::max(theirs.size(), mine.size()));
    request.exact_match_tokens =
        static_cast<int>(std::mismatch(theirs.begin(), theirs.begin() + shorter, mine.begin()).first - theirs.begin());
    compared.push_back(std::move(request));
  }
  return compared;
}

}  // namespace qwenbench::measure
