#include "engine/session.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "engine/fake_executor.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

SessionOptions options(int max_num_batched_tokens = 100) {
  SessionOptions options;
  options.engine.max_num_batched_tokens = max_num_batched_tokens;
  options.engine.block_size = 4;
  options.engine.limit_mm_per_prompt = {{"image", 2}};
  options.num_blocks = 60;
  return options;
}

workload::Request text_request(int length, int max_tokens) {
  workload::Request request;
  for (int i = 0; i < length; ++i) request.prompt.push_back((7 * i) % 30);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

workload::Request picture_request(const std::string& name) {
  workload::Request request = text_request(3, 2);
  request.images = {fake::picture(4, 8, name)};
  request.prompt.insert(request.prompt.end(), 8, fake::kImagePad);
  request.prompt.push_back(5);
  return request;
}

std::vector<TokenEvent> run(Session& session) {
  std::vector<TokenEvent> all;
  while (!session.idle()) {
    const auto& events = session.step();
    all.insert(all.end(), events.tokens.begin(), events.tokens.end());
  }
  return all;
}

}  // namespace

TEST_CASE("tokens arrive in order and are those of the request alone") {
  Session session(fake::make_model(), options());
  const auto request = text_request(10, 5);
  const RequestId id = session.submit(request);
  CHECK(session.num_waiting() == 1);
  const auto expected = fake::predict(request, 200);
  const auto& first = session.step();
  CHECK(first.admitted == std::vector<RequestId>{id});
  CHECK(first.prefill_tokens == 10);
  CHECK(first.decode_tokens == 0);
  REQUIRE(first.tokens.size() == 1);
  CHECK(first.tokens[0].token == expected[0]);
  const auto& second = session.step();
  CHECK(second.admitted.empty());
  CHECK(second.decode_tokens == 1);
  CHECK(second.context_tokens == 11);
  CHECK(session.block_table(id).size() == 3);
  const auto rest = run(session);
  REQUIRE(rest.size() == 3);
  CHECK(rest.back().index == 4);
  CHECK(rest.back().finish == FinishReason::kLength);
  CHECK(session.block_table(id).empty());
  CHECK(session.step().tokens.empty());
  CHECK(session.counters().steps == 5);
}

TEST_CASE("stopping: end of text, own stop ids, ignore_eos, max_model_len") {
  auto request = text_request(10, 30);
  const auto all = fake::predict(request, 200);
  const auto stop_at = [&](workload::Request r, std::vector<std::int32_t> eos, int max_model_len) {
    auto model_config = fake::config();
    model_config.generation.eos_token_ids = std::move(eos);
    std::vector<std::shared_ptr<comm::Communicator>> communicators;
    communicators.push_back(comm::make_single());
    std::vector<std::unique_ptr<backend::Executor>> executors;
    executors.push_back(std::make_unique<fake::FakeExecutor>(communicators[0], std::make_shared<fake::Log>()));
    auto with = options();
    with.engine.max_model_len = max_model_len;
    Session session(Model::from_executors(model_config, std::move(executors), std::move(communicators), 1), with);
    session.submit(std::move(r));
    return run(session);
  };
  const auto position = [&](std::int32_t token) {
    return static_cast<std::size_t>(std::find(all.begin(), all.end(), token) - all.begin());
  };
  const std::int32_t stop = all[7];
  const std::size_t expected = position(stop) + 1;

  request.ignore_eos = false;
  auto events = stop_at(request, {stop}, 0);
  CHECK(events.size() == expected);
  CHECK(events.back().finish == FinishReason::kStop);
  request.stop_ids = {stop};
  CHECK(stop_at(request, {}, 0).size() == expected);
  request.ignore_eos = true;
  CHECK(stop_at(request, {stop}, 0).size() == 30);
  events = stop_at(request, {}, 15);
  CHECK(events.size() == 5);
  CHECK(events.back().finish == FinishReason::kLength);
  CHECK(stop_at(request, {}, 10).size() == 1);
}

TEST_CASE("teacher forcing reports the states that predict what is scored, whatever the chunks") {
  auto request = text_request(9, 0);
  request.forced = {3, 1, 4, 1, 5, 9, 2, 6};
  request.score_from = 2;
  const auto expected = fake::predict_scores(request);
  for (const int step_tokens : {1, 3, 5, 100}) {
    Session session(fake::make_model(), options(step_tokens));
    const RequestId id = session.submit(request);
    std::vector<float> hidden;
    int next = 2, last = 0;
    while (!session.idle()) {
      const auto& events = session.step();
      CHECK(events.tokens.empty());
      for (const auto& score : events.scores) {
        CHECK(score.request == id);
        CHECK(score.first == next);
        CHECK(score.hidden.size() == static_cast<std::size_t>(score.count) * fake::kHidden);
        next += score.count;
        last += score.last;
        hidden.insert(hidden.end(), score.hidden.begin(), score.hidden.end());
      }
    }
    CHECK(last == 1);
    CHECK(hidden == expected);
  }
}

TEST_CASE("a picture is encoded once, though its pads span chunks and requests") {
  auto log = std::make_shared<fake::Log>();
  Session session(fake::make_model(1, log), options(3));
  const auto cat = picture_request("cat"), dog = picture_request("dog");
  const RequestId first = session.submit(cat);
  session.submit(dog);
  session.submit(cat);
  std::map<RequestId, std::vector<std::int32_t>> tokens;
  for (const auto& event : run(session)) tokens[event.request].push_back(event.token);
  CHECK(tokens[first] == fake::predict(cat, 200));
  CHECK(tokens[first + 1] == fake::predict(dog, 200));
  CHECK(tokens[first + 1] != tokens[first]);
  CHECK(tokens[first + 2] == tokens[first]);
  CHECK(log->encoded["dog"] == 1);
  CHECK(session.counters().images_encoded == log->encoded["cat"] + 1);
}

TEST_CASE("a picture that is still at hand is not encoded again; reset forgets it") {
  auto log = std::make_shared<fake::Log>();
  Session session(fake::make_model(1, log), options());
  for (int i = 0; i < 3; ++i) {
    session.submit(picture_request("cat"));
    run(session);
  }
  CHECK(log->encoded["cat"] == 1);
  session.reset(true);
  session.submit(picture_request("cat"));
  run(session);
  CHECK(log->encoded["cat"] == 2);
}

TEST_CASE("equal prefixes with different pictures do not share blocks") {
  auto with = options();
  with.engine.enable_prefix_caching = true;
  Session session(fake::make_model(), with);
  auto cat = picture_request("cat"), dog = picture_request("dog");
  session.submit(cat);
  run(session);
  session.submit(dog);
  const auto events = run(session);
  CHECK(events[0].token == fake::predict(dog, 200)[0]);
  CHECK(session.counters().prefix_hit_tokens == 0);
  session.submit(cat);
  run(session);
  CHECK(session.counters().prefix_hit_tokens == 8);  // of 12; the last block is computed
  CHECK(session.counters().prompt_tokens == 36);
}

TEST_CASE("reset drops requests and releases their blocks") {
  auto with = options();
  with.num_blocks = 4;
  with.engine.enable_prefix_caching = true;
  Session session(fake::make_model(), with);
  for (int i = 0; i < 3; ++i) {
    session.submit(text_request(8, 8));
    session.submit(text_request(8, 8));
    session.step();
    session.reset(i == 1);
    CHECK(session.idle());
  }
  const auto request = text_request(12, 5);
  session.submit(request);
  CHECK(run(session).size() == 5);
}

TEST_CASE("requests that can never run are refused, and the queue stays as it was") {
  auto with = options(20);
  with.num_blocks = 10;
  with.engine.max_model_len = 64;
  Session session(fake::make_model(), with);
  CHECK_THROWS_AS(session.submit(text_request(0, 1)), InputError);
  CHECK_THROWS_AS(session.submit(text_request(65, 1)), InputError);
  CHECK_THROWS_AS(session.submit(text_request(5, 0)), InputError);
  CHECK_THROWS_AS(session.submit(text_request(30, 20)), InputError);  // 49 tokens need 13 blocks
  CHECK_THROWS_WITH(
      session.submit(text_request(30, 20)),
      "request 0: needs 13 KV blocks of 4 tokens, but there are 10; give the KV cache more memory or lower "
      "max_tokens");
  const auto broken = [](auto change) {
    auto request = text_request(5, 2);
    change(request);
    return request;
  };
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.prompt[2] = fake::kVocabulary; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.prompt[2] = -1; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.prompt[2] = fake::kImagePad; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.sampling.temperature = -1; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.sampling.top_p = 0; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.sampling.top_k = -1; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.forced = {99}; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.forced = {1}, r.score_from = 1; })), InputError);
  CHECK_THROWS_AS(session.submit(broken([](auto& r) { r.forced = {fake::kImagePad}; })), InputError);
  auto pictures = picture_request("cat");
  for (int i = 0; i < 2; ++i) {
    pictures.images.push_back(pictures.images[0]);
    pictures.prompt.insert(pictures.prompt.end(), 8, fake::kImagePad);
  }
  CHECK_THROWS_AS(session.submit(pictures), InputError);
  CHECK(session.idle());
  session.submit(text_request(30, 11));  // 40 tokens: all ten blocks
  CHECK(run(session).size() == 11);
}

TEST_CASE("sessions that cannot be are refused") {
  auto with = options();
  with.engine.max_model_len = 201;
  CHECK_THROWS_AS(Session(fake::make_model(), with), InputError);
  with = options();
  with.engine.block_size = 0;
  CHECK_THROWS_AS(Session(fake::make_model(), with), InputError);
}
