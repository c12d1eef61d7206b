#include "engine/model.h"

#include <doctest/doctest.h>

#include "engine/fake_executor.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

SessionOptions options() {
  SessionOptions options;
  options.engine.block_size = 4;
  options.num_blocks = 20;
  return options;
}

workload::Request request() {
  workload::Request request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 5;
  request.ignore_eos = true;
  return request;
}

}  // namespace

TEST_CASE("a failing rank ends the step on all ranks with its own error, and the model with it") {
  for (const int rank : {0, 1, 2}) {
    auto log = std::make_shared<fake::Log>();
    log->fail_rank = rank;
    log->fail_step = 2;
    auto model = fake::make_model(3, log);
    Session session(model, options());
    session.submit(request());
    session.step();
    session.step();
    CHECK_THROWS_WITH_AS(session.step(), "injected failure", DeviceError);
    CHECK_THROWS_AS(session.step(), DeviceError);
    CHECK_THROWS_AS(model->logits(std::vector<float>(fake::kHidden), 1), DeviceError);
  }
}

TEST_CASE("logits of given states") {
  auto model = fake::make_model(2);
  std::vector<float> hidden = fake::hidden_state(123456789), second = fake::hidden_state(987);
  hidden.insert(hidden.end(), second.begin(), second.end());
  const auto logits = model->logits(hidden, 2);
  REQUIRE(logits.size() == 2 * fake::kVocabulary);
  CHECK(std::vector<float>(logits.begin() + fake::kVocabulary, logits.end()) == fake::logits_of(second));
  CHECK(model->logits({}, 0).empty());
  CHECK(model->ranks() == 2);
  CHECK(model->weight_bytes(1) == 100);
}
