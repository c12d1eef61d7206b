#include "measure/timing.h"

#include <doctest/doctest.h>

#include <map>

#include "base/interrupt.h"
#include "fake_target.h"
#include "measure/schedule.h"

using namespace qwenbench;
using namespace qwenbench::measure;
using workload::Request;

namespace {

std::string letters(int variants, int trials) {
  std::string text;
  for (const ScheduledTrial& t : palindromic_schedule(variants, trials)) text += "RBC"[t.variant];
  return text;
}

}  // namespace

TEST_CASE("palindromic blocks, rotated") {
  CHECK(letters(3, 2) == "RBCCBR");
  CHECK(letters(3, 6) == "RBCCBRBCRRCBCRBBRC");
  CHECK(letters(2, 4) == "RBBRBRRB");
  CHECK(letters(3, 3) == "RBCCBRBCR");
  CHECK(letters(1, 3) == "RRR");
  CHECK(palindromic_schedule(3, 0).empty());
}

TEST_CASE("every variant runs every trial once, and a linear drift cancels") {
  for (const int variants : {2, 3, 4}) {
    const auto order = palindromic_schedule(variants, 12);
    std::map<int, double> mean_position;
    std::map<std::pair<int, int>, int> seen;
    for (std::size_t i = 0; i < order.size(); ++i) {
      CHECK(order[i].position == static_cast<int>(i));
      ++seen[{order[i].variant, order[i].trial}];
      mean_position[order[i].variant] += order[i].position / 12.0;
    }
    CHECK(seen.size() == static_cast<std::size_t>(variants * 12));
    for (const auto& [key, count] : seen) CHECK(count == 1);
    for (const auto& [variant, mean] : mean_position) {
      CHECK(mean == doctest::Approx(static_cast<double>(order.size() - 1) / 2));
    }
  }
}

TEST_CASE("one target lives at a time, is warmed up when made, and reset before every trial") {
  int alive = 0, made = 0;
  std::vector<int> submitted;
  struct Counted : FakeTarget {
    Counted(int& alive_count, std::vector<int>& all) : alive(alive_count), submitted(all) { ++alive; }
    ~Counted() override {
      --alive;
      submitted.push_back(static_cast<int>(ids.size()));
      CHECK(resets * 4 + 2 == static_cast<int>(ids.size()));  // 2 warm-up requests, then a reset before each trial of 4
    }
    int& alive;
    std::vector<int>& submitted;
  };
  std::vector<TimedVariant> variants;
  for (const char* name : {"r", "b"}) {
    variants.push_back({name, [&]() -> std::unique_ptr<Target> {
                          CHECK(alive == 0);
                          ++made;
                          return std::make_unique<Counted>(alive, submitted);
                        }});
  }
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(request_of(std::to_string(i), 2, i * 0.5));
  TimingOptions options;
  options.trials = 2;
  options.warmup_prompts = 2;
  int finished = 0;
  options.on_finished = [&] { ++finished; };
  const TimingOutcome outcome = run_timing(variants, requests, options);
  CHECK(alive == 0);
  CHECK(made == 3);  // r b b r
  CHECK(submitted == std::vector<int>{6, 10, 6});
  CHECK(finished == 16);
  for (const TimedSamples& samples : outcome.variants) {
    REQUIRE(samples.trials.size() == 2);
    CHECK(samples.trials[0].index == 0);
    CHECK(samples.trials[1].index == 1);
    CHECK(samples.requests.size() == 8);
    CHECK(samples.first_outputs.size() == 4);
  }
  CHECK(outcome.variants[0].trials[1].position == 3);
}

TEST_CASE("cancelled in the second trial: the first is whole, the second marked") {
  FakeTarget::Options fake;
  std::vector<TimedVariant> variants{{"r", [] { return std::make_unique<FakeTarget>(); }},
                                     {"b", [] {
                                        FakeTarget::Options options;
                                        options.on_step = [](int step) {
                                          if (step == 1) set_interrupted(true);
                                        };
                                        return std::make_unique<FakeTarget>(options);
                                      }}};
  const std::vector<Request> requests{request_of("a", 3)};
  const TimingOutcome outcome = run_timing(variants, requests, {});
  set_interrupted(false);
  CHECK(outcome.cancelled);
  CHECK(outcome.variants[0].requests[0].completed());
  REQUIRE(outcome.variants[1].requests.size() == 1);
  CHECK(outcome.variants[1].requests[0].error == "cancelled");
}

TEST_CASE("greedy outputs against the reference's") {
  const std::vector<Request> requests{request_of("same", 3), request_of("differs", 3), request_of("shorter", 3),
                                      request_of("same", 3), request_of("failed", 3)};
  TimedSamples reference, variant;
  reference.first_outputs = {{1, 2, 3}, {1, 2, 3}, {1, 2, 3}, {1, 2, 3}, {1}};
  variant.first_outputs = {{1, 2, 3}, {1, 9, 3}, {1, 2}, {4, 4, 4}, {}};
  const auto compared = compare_greedy(requests, reference, variant);
  REQUIRE(compared.size() == 3);  // a repeated id once; nothing to compare for the last
  CHECK(compared[0].id == "greedy/same");
  CHECK(compared[0].exact_match_tokens == 3);
  CHECK(compared[0].greedy_tokens == 3);
  CHECK(compared[1].exact_match_tokens == 1);
  CHECK(compared[2].exact_match_tokens == 2);
  CHECK(compared[2].greedy_tokens == 3);
  CHECK(compared[2].n_tokens == 0);
}
