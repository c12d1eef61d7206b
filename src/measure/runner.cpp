#include "measure/runner.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "base/interrupt.h"

namespace qwenbench::measure {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// The client's side of one trial. Times are the target's.
class Client {
 public:
  Client(Target& target, std::span<const workload::Request> requests, const TrialOptions& options)
      : target_(target), requests_(requests), options_(options), start_(target.now()), end_(start_) {
    order_.resize(requests.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return requests[a].arrival_s < requests[b].arrival_s; });
    const std::size_t slots =
        options.max_concurrency > 0 ? static_cast<std::size_t>(options.max_concurrency) : requests.size();
    for (std::size_t i = 0; i < std::min(slots, requests.size()); ++i) free_slots_.push(start_);
    outcome_.requests.resize(requests.size());
    outcome_.outputs.resize(requests.size());
    last_token_.resize(requests.size(), 0);
    for (std::size_t i = 0; i < requests.size(); ++i) describe(i);
  }

  TrialOutcome run() {
    const TargetCounters before = target_.counters();
    TargetEvents events;
    while (next_ < order_.size() || !flying_.empty()) {
      if (interrupted()) {
        cancel();
        break;
      }
      send_due();
      if (next_ == order_.size() && flying_.empty()) break;
      target_.poll(next_send(), events);
      for (const TargetStep& step : events.steps) count(step);
      for (const TargetToken& token : events.tokens) receive(token);
    }
    finish(before);
    return std::move(outcome_);
  }

 private:
  void describe(std::size_t index) {
    const workload::Request& request = requests_[index];
    report::RequestRecord& record = outcome_.requests[index];
    record.id = request.id;
    record.trial = options_.trial;
    record.input_len = static_cast<int>(request.prompt.size());
    for (const auto& image : request.images) record.input_vision_len += image->num_tokens();
  }

  /// When the next request may be sent; never while no slot is free.
  double next_send() const {
    if (next_ == order_.size() || free_slots_.empty()) return kNever;
    return std::max(start_ + requests_[order_[next_]].arrival_s, free_slots_.top());
  }

  /// A request counts as sent at the moment when it was due and had a slot, even where the target was in the middle of
  /// a step then and took notice after it: a server's client does not wait for the server's steps.
  void send_due() {
    while (true) {
      const double sent = next_send();
      if (!(sent <= target_.now())) return;
      free_slots_.pop();
      const std::size_t index = order_[next_++];
      report::RequestRecord& record = outcome_.requests[index];
      record.arrival = sent - start_;
      record.queue_time = record.arrival - requests_[index].arrival_s;
      try {
        flying_.emplace(target_.submit(requests_[index]), index);
      } catch (const InputError& error) {
        record.error = error.what();
        free_slots_.push(sent);
        if (options_.on_finished) options_.on_finished();
      }
    }
  }

  void count(const TargetStep& step) {
    step_seconds_ += step.end - step.begin;
    if (step.prefill_tokens > 0 || step.decode_tokens == 0) return;
    outcome_.trial.decode_tokens += step.decode_tokens;
    outcome_.trial.decode_seconds += step.end - step.begin;
    if (options_.traffic)
      decode_bytes_ += options_.traffic->weight_bytes +
                       options_.traffic->bytes_per_context_token * static_cast<double>(step.context_tokens);
  }

  void receive(const TargetToken& token) {
    const auto found = flying_.find(token.ticket);
    if (found == flying_.end()) return;
    const std::size_t index = found->second;
    report::RequestRecord& record = outcome_.requests[index];
    if (!record.ttft) {
      record.ttft = token.time - start_ - record.arrival;
      record.cached_tokens = token.cached_tokens;
    } else {
      record.itls.push_back(token.time - last_token_[index]);
    }
    last_token_[index] = token.time;
    outcome_.outputs[index].push_back(token.token);
    if (!token.last) return;
    end_ = std::max(end_, token.time);
    free_slots_.push(token.time);
    flying_.erase(found);
    if (options_.on_finished) options_.on_finished();
  }

  void cancel() {
    outcome_.cancelled = true;
    target_.reset();
    end_ = target_.now();
    for (const auto& [ticket, index] : flying_) outcome_.requests[index].error = "cancelled";
    for (; next_ < order_.size(); ++next_) outcome_.requests[order_[next_]].error = "cancelled before it was sent";
  }

  /// Of the trial's step time: the mean over ranks, and the ranks with the least and the most.
  void add_comm_share(const std::vector<double>& before, const std::vector<double>& after) {
    if (after.empty() || before.size() != after.size() || !(step_seconds_ > 0)) return;
    double sum = 0, least = 1, most = 0;
    for (std::size_t rank = 0; rank < after.size(); ++rank) {
      const double share = std::clamp((after[rank] - before[rank]) / step_seconds_, 0.0, 1.0);
      sum += share;
      least = std::min(least, share);
      most = std::max(most, share);
    }
    report::Trial& trial = outcome_.trial;
    trial.comm_share = sum / static_cast<double>(after.size());
    trial.comm_share_min = least;
    trial.comm_share_max = most;
  }

  void finish(const TargetCounters& before) {
    const TargetCounters after = target_.counters();
    report::Trial& trial = outcome_.trial;
    trial.index = options_.trial;
    trial.position = options_.position;
    trial.duration = end_ - start_;
    if (options_.traffic && trial.decode_seconds > 0)
      trial.bandwidth_share = decode_bytes_ / trial.decode_seconds / options_.traffic->bytes_per_second;
    if (before.energy_j && after.energy_j) trial.energy_j = *after.energy_j - *before.energy_j;
    if (after.throttled) trial.throttled = before.throttled.value_or(false) || *after.throttled;
    trial.preemptions = after.preemptions - before.preemptions;
    trial.prefix_queried_tokens = after.prefix_queried_tokens - before.prefix_queried_tokens;
    trial.prefix_hit_tokens = after.prefix_hit_tokens - before.prefix_hit_tokens;
    add_comm_share(before.collective_seconds, after.collective_seconds);
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      outcome_.requests[i].output_len = static_cast<int>(outcome_.outputs[i].size());
      if (options_.detokenize) outcome_.requests[i].text = options_.detokenize(outcome_.outputs[i]);
    }
  }

  Target& target_;
  std::span<const workload::Request> requests_;
  const TrialOptions& options_;
  double start_, end_;
  double decode_bytes_ = 0;  // read by steps that only decode
  double step_seconds_ = 0;
  std::vector<std::size_t> order_;  // by arrival
  std::size_t next_ = 0;            // in order_
  /// Since when each free slot is free: the earliest is used first.
  std::priority_queue<double, std::vector<double>, std::greater<>> free_slots_;
  std::unordered_map<Ticket, std::size_t> flying_;
  std::vector<double> last_token_;
  TrialOutcome outcome_;
};

}  // namespace

TrialOutcome run_trial(Target& target, std::span<const workload::Request> requests, const TrialOptions& options) {
  return Client(target, requests, options).run();
}

}  // namespace qwenbench::measure
