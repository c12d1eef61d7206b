#include "measure/engine_target.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace qwenbench::measure {
namespace {

constexpr double kLongestNap = 0.02;  // seconds: Ctrl-C is noticed between naps

}  // namespace

double EngineTarget::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void EngineTarget::poll(double wake, TargetEvents& events) {
  events.clear();
  const double begin = now();
  if (session_->idle()) {
    const double nap = std::min(wake - begin, kLongestNap);
    if (nap > 0) std::this_thread::sleep_for(std::chrono::duration<double>(nap));
    return;
  }
  const engine::StepEvents& step = session_->step();
  const double end = now();
  events.steps.push_back({begin, end, step.prefill_tokens, step.decode_tokens, step.context_tokens});
  for (const engine::TokenEvent& token : step.tokens) {
    events.tokens.push_back(
        {token.request, end, token.token, token.finish != engine::FinishReason::kNone, token.prefix_hit});
  }
}

TargetCounters EngineTarget::counters() const {
  const engine::SessionCounters& counters = session_->counters();
  const backend::GpuActivity activity = backend::read_gpu_activity(gpus_);
  return {counters.preemptions, counters.prompt_tokens, counters.prefix_hit_tokens,
          activity.energy_j,    activity.throttled,     session_->collective_seconds()};
}

}  // namespace qwenbench::measure
