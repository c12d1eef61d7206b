#include "measure/runner.h"

#include <doctest/doctest.h>

#include "base/interrupt.h"
#include "fake_target.h"

using namespace qwenbench;
using namespace qwenbench::measure;
using workload::Request;

TEST_CASE("closed loop: max_concurrency in flight, the wait for a slot is queue time and not TTFT") {
  FakeTarget target;
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(request_of(std::to_string(i), 3));
  TrialOptions options;
  options.trial = 4;
  options.position = 9;
  options.max_concurrency = 2;
  int finished = 0;
  options.on_finished = [&] { ++finished; };
  options.detokenize = [](std::span<const std::int32_t> ids) { return std::to_string(ids.size()) + " tokens"; };
  const TrialOutcome outcome = run_trial(target, requests, options);

  CHECK_FALSE(outcome.cancelled);
  CHECK(finished == 5);
  CHECK(target.most_running == 2);
  CHECK(target.ids == std::vector<std::string>{"0", "1", "2", "3", "4"});
  // Pairs of requests, three steps of one second each.
  const std::vector<double> sent{0, 0, 3, 3, 6};
  for (std::size_t i = 0; i < 5; ++i) {
    const report::RequestRecord& r = outcome.requests[i];
    CHECK(r.completed());
    CHECK(r.trial == 4);
    CHECK(r.arrival == sent[i]);
    CHECK(r.queue_time == sent[i]);
    CHECK(r.ttft == 1.0);
    CHECK(r.itls == std::vector<double>{1.0, 1.0});
    CHECK(r.input_len == 3);
    CHECK(r.output_len == 3);
    CHECK(r.text == "3 tokens");
    CHECK(outcome.outputs[i] == std::vector<std::int32_t>{100, 101, 102});
  }
  const report::Trial& trial = outcome.trial;
  CHECK(trial.index == 4);
  CHECK(trial.position == 9);
  CHECK(trial.duration == 9.0);
  CHECK(trial.preemptions == 9);     // the fake counts one a step
  CHECK(trial.decode_tokens == 10);  // the two steps after each first token: 4 + 4 + 2
  CHECK(trial.decode_seconds == 6.0);
}

TEST_CASE("timed arrivals: a request arrives when it is due, even in the middle of a step") {
  FakeTarget target;
  const std::vector<Request> requests{request_of("late", 1, 7.25), request_of("a", 2, 0.5), request_of("b", 1, 1.0)};
  const TrialOutcome outcome = run_trial(target, requests, {});
  CHECK(target.ids == std::vector<std::string>{"a", "b", "late"});
  // The idle target sleeps until 0.5; the step from 0.5 to 1.5 is under way when b arrives.
  CHECK(outcome.requests[1].arrival == 0.5);
  CHECK(outcome.requests[1].ttft == 1.0);
  CHECK(outcome.requests[2].arrival == 1.0);
  CHECK(outcome.requests[2].queue_time == 0);
  CHECK(outcome.requests[2].ttft == 1.5);  // 2.5 - 1.0: the rest of that step counts
  CHECK(outcome.requests[0].arrival == 7.25);
  CHECK(outcome.requests[0].ttft == 1.0);
  CHECK(outcome.trial.duration == 8.25);
}

TEST_CASE("timed arrivals behind max_concurrency wait from the moment when they were due") {
  FakeTarget target;
  const std::vector<Request> requests{request_of("a", 4, 0), request_of("b", 1, 1.5)};
  TrialOptions options;
  options.max_concurrency = 1;
  const TrialOutcome outcome = run_trial(target, requests, options);
  CHECK(outcome.requests[1].arrival == 4.0);
  CHECK(outcome.requests[1].queue_time == 2.5);
  CHECK(outcome.requests[1].ttft == 1.0);
}

TEST_CASE("a refused request is a record with its error, and gives its slot back") {
  FakeTarget target;
  std::vector<Request> requests{request_of("bad", 2), request_of("good", 2)};
  requests[0].prompt.clear();
  TrialOptions options;
  options.max_concurrency = 1;
  const TrialOutcome outcome = run_trial(target, requests, options);
  CHECK(outcome.requests[0].error == "the prompt is empty");
  CHECK_FALSE(outcome.requests[0].completed());
  CHECK(outcome.requests[1].completed());
  CHECK(outcome.requests[1].arrival == 0);
}

TEST_CASE("Ctrl-C keeps what was finished and marks the rest") {
  FakeTarget::Options fake;
  fake.on_step = [](int step) {
    if (step == 3) set_interrupted(true);
  };
  FakeTarget target(fake);
  const std::vector<Request> requests{request_of("short", 1), request_of("long", 9), request_of("unsent", 1, 50)};
  const TrialOutcome outcome = run_trial(target, requests, {});
  set_interrupted(false);
  CHECK(outcome.cancelled);
  CHECK(outcome.requests[0].completed());
  CHECK(outcome.requests[1].error == "cancelled");
  CHECK(outcome.requests[1].output_len == 3);
  CHECK(outcome.requests[2].error == "cancelled before it was sent");
  CHECK(outcome.trial.duration == 3.0);
  CHECK(target.resets == 1);
}

TEST_CASE("no requests: nothing happens") {
  FakeTarget target;
  const TrialOutcome outcome = run_trial(target, {}, {});
  CHECK(outcome.requests.empty());
  CHECK(outcome.trial.duration == 0);
}

TEST_CASE("the share of collectives: of the step time, mean, least and most over ranks") {
  FakeTarget::Options options;
  options.step_s = 2;
  options.collective_s = {0.5, 0.1};
  FakeTarget target(options);
  const std::vector<workload::Request> requests = {request_of("a", 3), request_of("b", 3, 100)};  // idle in between
  const TrialOutcome outcome = run_trial(target, requests, {});
  CHECK(*outcome.trial.comm_share == doctest::Approx(0.15));
  CHECK(*outcome.trial.comm_share_min == doctest::Approx(0.05));
  CHECK(*outcome.trial.comm_share_max == doctest::Approx(0.25));
  FakeTarget alone;
  CHECK_FALSE(run_trial(alone, requests, {}).trial.comm_share);
}
