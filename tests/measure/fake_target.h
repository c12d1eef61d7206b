// A target on a clock that only moves when it works: a step takes as long as the test says.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <vector>

#include "base/error.h"
#include "measure/target.h"

namespace qwenbench::measure {

class FakeTarget : public Target {
 public:
  /// One step lasts `step_s` and gives one token to each of the first `max_running` requests; its first token a request
  /// gets in the step after that in which it was submitted at the earliest. Tokens are `first_token` + their index.
  struct Options {
    double step_s = 1.0;
    int max_running = 1000;
    std::int32_t first_token = 100;
    std::function<void(int step)> on_step;
    std::vector<double> collective_s = {};  // of each rank, in a step
  };
  explicit FakeTarget(Options options) : options_(std::move(options)) {
    counters_.collective_seconds.assign(options_.collective_s.size(), 5.0);  // since long before
  }
  FakeTarget() : FakeTarget(Options{}) {}

  double now() override { return now_; }

  Ticket submit(const workload::Request& request) override {
    if (request.prompt.empty()) throw InputError("the prompt is empty");
    submitted_at.push_back(now_);
    ids.push_back(request.id);
    running_.push_back({static_cast<Ticket>(submitted_at.size()), request.max_tokens, 0});
    most_running = std::max(most_running, static_cast<int>(running_.size()));
    return running_.back().ticket;
  }

  void poll(double wake, TargetEvents& events) override {
    events.clear();
    if (running_.empty()) {
      now_ = std::max(now_, wake);
      return;
    }
    const double begin = now_;
    now_ += options_.step_s;
    int prefill = 0, decode = 0;
    const auto running = std::min(running_.size(), static_cast<std::size_t>(options_.max_running));
    for (std::size_t i = 0; i < running; ++i) {
      Running& r = running_[i];
      (r.done == 0 ? prefill : decode) += 1;
      events.tokens.push_back({r.ticket, now_, options_.first_token + r.done, r.done + 1 == r.max_tokens});
      ++r.done;
    }
    events.steps.push_back({begin, now_, prefill, decode, 0});
    std::erase_if(running_, [](const Running& r) { return r.done == r.max_tokens; });
    counters_.preemptions += 1;
    for (std::size_t rank = 0; rank < options_.collective_s.size(); ++rank)
      counters_.collective_seconds[rank] += options_.collective_s[rank];
    ++steps;
    if (options_.on_step) options_.on_step(steps);
  }

  TargetCounters counters() const override { return counters_; }

  void reset() override {
    running_.clear();
    ++resets;
  }

  std::vector<double> submitted_at;
  std::vector<std::string> ids;
  int most_running = 0, steps = 0, resets = 0;

 private:
  struct Running {
    Ticket ticket;
    int max_tokens, done;
  };
  Options options_;
  double now_ = 1000;  // a clock has any origin
  std::deque<Running> running_;
  TargetCounters counters_;
};

inline workload::Request request_of(const std::string& id, int tokens, double arrival = 0) {
  workload::Request request;
  request.id = id;
  request.prompt = {1, 2, 3};
  request.max_tokens = tokens;
  request.arrival_s = arrival;
  return request;
}

}  // namespace qwenbench::measure
