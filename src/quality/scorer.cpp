#include "quality/scorer.h"

#include <fmt/format.h>

#include <unordered_map>

#include "base/error.h"
#include "base/interrupt.h"

namespace qwenbench::quality {

bool SessionScorer::score(std::span<const workload::Request> requests, const OnRows& on_rows) {
  std::unordered_map<engine::RequestId, std::size_t> index;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    try {
      index.emplace(session_->submit(requests[i]), i);
    } catch (const InputError& error) {
      throw InputError(fmt::format("request {} of the quality set: {}", requests[i].id, error.what()));
    }
  }
  while (!session_->idle()) {
    if (interrupted()) {
      session_->reset(true);
      return false;
    }
    for (const engine::ScoreEvent& event : session_->step().scores) {
      const std::size_t request = index.at(event.request);
      on_rows(request, event.first - requests[request].score_from, event.hidden);
    }
  }
  return true;
}

}  // namespace qwenbench::quality
