#include "calibration/calibrate.h"

#include <fmt/format.h>

#include <map>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"

namespace qwenbench::calibration {
namespace {

using workload::Request;

[[noreturn]] void complain(int layer, const std::string& where) {
  throw InputError(fmt::format(
      "calibration: K or V of layer {} is NaN or infinite {}; the checkpoint or the picture is damaged, and "
      "no scale can be made from it",
      layer, where));
}

/// A step computes many requests at once: runs those that were under way alone, until one shows the fault again.
[[noreturn]] void find_culprit(CalibrationRun& run, KvStatistics& statistics, int layer,
                               const std::map<engine::RequestId, const Request*>& under_way) {
  for (const auto& [id, request] : under_way) {
    statistics.forget_not_finite();
    run.reset();
    run.submit(*request);
    while (!run.idle()) {
      run.step();
      if (const auto found = statistics.not_finite())
        complain(found->layer, fmt::format("at token {} of request {}", found->token, request->id));
    }
  }
  complain(layer, fmt::format("in one of {} requests, in none of them alone", under_way.size()));
}

}  // namespace

CalibrationStep SessionCalibrationRun::step() {
  const engine::StepEvents& events = session_->step();
  CalibrationStep step;
  step.begun = static_cast<int>(events.admitted.size());
  step.tokens = std::int64_t{events.prefill_tokens} + events.decode_tokens;
  for (const engine::TokenEvent& token : events.tokens) {
    if (token.finish != engine::FinishReason::kNone) step.ended.push_back(token.request);
  }
  for (const engine::ScoreEvent& score : events.scores) {
    if (score.last) step.ended.push_back(score.request);
  }
  return step;
}

bool collect_statistics(CalibrationRun& run, KvStatistics& statistics, std::span<const Request> requests,
                        const std::function<void()>& on_finished) {
  std::map<engine::RequestId, const Request*> under_way;
  for (const Request& request : requests) {
    try {
      under_way.emplace(run.submit(request), &request);
    } catch (const InputError& error) {
      throw InputError(fmt::format("request {} of the calibration set: {}", request.id, error.what()));
    }
  }
  while (!run.idle()) {
    if (interrupted()) {
      run.reset();
      return false;
    }
    const CalibrationStep step = run.step();
    if (const auto found = statistics.not_finite()) find_culprit(run, statistics, found->layer, under_way);
    for (const engine::RequestId id : step.ended) {
      under_way.erase(id);
      if (on_finished) on_finished();
    }
  }
  return true;
}

}  // namespace qwenbench::calibration
