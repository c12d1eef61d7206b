#include <doctest/doctest.h>

#include <map>

#include "engine/random_requests.h"
#include "engine/sequence.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

struct Outcome {
  std::vector<std::int32_t> tokens;
  std::vector<float> hidden;
  int admissions = 0, ends = 0;
};

void record(const StepEvents& events, std::map<RequestId, Outcome>& outcomes) {
  for (const RequestId id : events.admitted) ++outcomes[id].admissions;
  for (const auto& event : events.tokens) {
    auto& outcome = outcomes[event.request];
    REQUIRE(outcome.admissions == 1);
    REQUIRE(outcome.ends == 0);
    REQUIRE(event.index == static_cast<int>(outcome.tokens.size()));
    outcome.tokens.push_back(event.token);
    outcome.ends += event.finish != FinishReason::kNone;
  }
  for (const auto& event : events.scores) {
    auto& outcome = outcomes[event.request];
    REQUIRE(outcome.ends == 0);
    outcome.hidden.insert(outcome.hidden.end(), event.hidden.begin(), event.hidden.end());
    outcome.ends += event.last;
  }
}

void check(const std::map<RequestId, workload::Request>& requests, std::map<RequestId, Outcome>& outcomes,
           int max_model_len) {
  for (const auto& [id, request] : requests) {
    const auto& outcome = outcomes[id];
    CHECK(outcome.admissions == 1);
    CHECK(outcome.ends == 1);
    if (request.forced.empty())
      CHECK(outcome.tokens == fake::predict(request, max_model_len));
    else
      CHECK(outcome.hidden == fake::predict_scores(request));
  }
}

/// One session of random settings under random requests; returns its counters.
SessionCounters run(unsigned seed, int ranks) {
  fake::RandomRequests random(seed);
  SessionOptions options;
  auto& engine = options.engine;
  engine.block_size = random.between(1, 6);
  engine.max_model_len = random.between(32, 60);
  engine.max_num_seqs = random.between(1, 8);
  engine.max_num_batched_tokens = random.between(4, 40);
  engine.enable_chunked_prefill = !random.one_in(4);
  if (!engine.enable_chunked_prefill) engine.max_num_batched_tokens += 38;
  engine.enable_prefix_caching = !random.one_in(3);
  engine.limit_mm_per_prompt = {{"image", 9}};
  options.num_blocks = blocks_for(random.between(42, 75), engine.block_size);
  Session session(fake::make_model(ranks), options);

  std::map<RequestId, workload::Request> requests;
  std::map<RequestId, Outcome> outcomes;
  for (int step = 0; step < 150 || !session.idle(); ++step) {
    REQUIRE(step < 5000);
    if (step < 150 && random.one_in(3)) {
      const auto request = random.next(30, 10);
      if (static_cast<int>(request.prompt.size() + request.forced.size()) <= engine.max_model_len) {
        requests[session.submit(request)] = request;
      }
    }
    const auto& events = session.step();
    REQUIRE(events.prefill_tokens + events.decode_tokens <= engine.max_num_batched_tokens);
    REQUIRE(session.num_running() <= engine.max_num_seqs);
    record(events, outcomes);
  }
  check(requests, outcomes, engine.max_model_len);
  return session.counters();
}

}  // namespace

TEST_CASE("10,000 random steps: every request gets what it would get alone") {
  SessionCounters total;
  for (unsigned seed = 0; total.steps < 10000; ++seed) {
    CAPTURE(seed);
    const auto counters = run(seed, 1);
    total.steps += counters.steps;
    total.preemptions += counters.preemptions;
    total.prefix_hit_tokens += counters.prefix_hit_tokens;
    total.images_encoded += counters.images_encoded;
  }
  CHECK(total.preemptions > 100);  // the test has seen what it is about
  CHECK(total.prefix_hit_tokens > 1000);
  CHECK(total.images_encoded > 100);
}

TEST_CASE("the same on two ranks") {
  for (unsigned seed = 100; seed < 104; ++seed) run(seed, 2);
}
