// Bit-identical logits, whatever else the engine does at the same time.
#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "parity/engine_runs.h"

using namespace qwenbench;
using namespace qwenbench::parity;

namespace {

/// Requests of every kind, on checkpoint "a"-like (first letter) models.
const Case& request_case(const std::string& name) {
  static std::map<std::string, Case> cases;
  const auto found = cases.find(name);
  return found != cases.end() ? found->second : cases.emplace(name, load_case(name)).first->second;
}

const std::vector<std::string> kNames{"text", "one_image", "two_images", "long_text"};

std::string fixture(const std::string& model, const std::string& name) { return model.substr(0, 1) + "/" + name; }

/// Hidden states of one request alone, whole in one step, on one rank and one thread: what all others must equal.
const std::vector<float>& alone(const std::string& model_name, const std::string& name) {
  static std::map<std::string, std::vector<float>> results;
  auto& result = results[model_name + "/" + name];
  if (result.empty()) {
    engine::Session session(load_model(model_name), session_options());
    result = drain(session, session.submit(forced_request(request_case(fixture(model_name, name)))));
  }
  REQUIRE(!result.empty());
  return result;
}

/// Submits every kind of request twice over and compares each with its lonely self. Logits are computed from equal
/// states by the same code, row by row; `logits do not depend on the rows beside them` below checks that.
void check_all(const std::string& model_name, engine::Session& session) {
  CAPTURE(model_name);
  std::map<engine::RequestId, std::string> names;
  std::map<engine::RequestId, std::vector<float>> hidden;
  for (int copy = 0; copy < 2; ++copy) {
    for (const auto& name : kNames) {
      names[session.submit(forced_request(request_case(fixture(model_name, name))))] = name;
    }
  }
  while (!session.idle()) {
    for (const auto& event : session.step().scores) {
      auto& out = hidden[event.request];
      out.insert(out.end(), event.hidden.begin(), event.hidden.end());
    }
  }
  for (const auto& [id, name] : names) {
    CAPTURE(name);
    CHECK(hidden[id] == alone(model_name, name));
  }
}

workload::Request generation(int first, int prompt_tokens, int max_tokens) {
  const auto& ids = request_case("a/long_text").ids;
  workload::Request request;
  request.prompt.assign(ids.begin() + first, ids.begin() + first + prompt_tokens);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

void check_options(const engine::SessionOptions& options, const std::string& model_name = "a", int ranks = 1,
                   int threads = 1) {
  engine::Session session(load_model(model_name, ranks, threads), options);
  check_all(model_name, session);
}

}  // namespace

TEST_CASE("batch composition changes no bit") {
  auto options = session_options();
  for (const int max_num_seqs : {1, 6, 16}) {
    CAPTURE(max_num_seqs);
    options.engine.max_num_seqs = max_num_seqs;
    check_options(options);
  }
}

TEST_CASE("chunk size changes no bit") {
  auto options = session_options();
  for (const std::string model : {"a", "b"}) {
    for (const int tokens : {7, 16, 64, 2048}) {
      CAPTURE(tokens);
      options.engine.max_num_batched_tokens = tokens;
      check_options(options, model);
    }
  }
}

TEST_CASE("block size changes no bit") {
  auto options = session_options();
  for (const int block_size : {16, 32, 128}) {
    CAPTURE(block_size);
    options.engine.block_size = block_size;
    check_options(options);
  }
}

TEST_CASE("the prefix cache changes no bit, on the first pass and when it hits") {
  auto options = session_options();
  options.engine.enable_prefix_caching = true;
  options.engine.block_size = 16;
  options.engine.max_num_batched_tokens = 64;
  options.num_blocks = 128;
  engine::Session session(load_model("a"), options);
  check_all("a", session);
  const auto first_hits = session.counters().prefix_hit_tokens;
  check_all("a", session);
  CHECK(session.counters().prefix_hit_tokens > first_hits);
  session.reset(true);
  const auto before = session.counters().prefix_hit_tokens;
  Case shorter = request_case("a/two_images");
  session.submit(forced_request(shorter));
  session.step();
  CHECK(session.counters().prefix_hit_tokens == before);  // nothing left to hit
}

TEST_CASE("another picture at the same place is no hit") {
  auto options = session_options();
  options.engine.enable_prefix_caching = true;
  options.engine.block_size = 16;
  engine::Session session(load_model("a"), options);
  check_all("a", session);
  Case other = request_case("a/one_image");
  auto image = std::make_shared<workload::Image>(*other.images[0]);
  for (float& value : image->pixel_values) value = -value;
  image->sha256 = "another";
  other.images = {image};
  const auto hidden = drain(session, session.submit(forced_request(other)));
  engine::Session fresh(load_model("a"), session_options());
  CHECK(hidden == drain(fresh, fresh.submit(forced_request(other))));
  CHECK(hidden != alone("a", "one_image"));
}

TEST_CASE("preemption changes no bit") {
  auto options = session_options();
  options.engine.block_size = 16;
  options.engine.max_num_batched_tokens = 16;
  std::int64_t preemptions = 0;
  for (int num_blocks = 16; num_blocks <= 30; num_blocks += 2) {  // long_text alone needs 12
    CAPTURE(num_blocks);
    options.num_blocks = num_blocks;
    engine::Session session(load_model("a"), options);
    for (int i = 0; i < 4; ++i) session.submit(generation(10 * i, 20, 60));  // grow while the others are prefilled
    check_all("a", session);
    preemptions += session.counters().preemptions;
  }
  CHECK(preemptions > 0);
}

TEST_CASE("generation that is preempted generates the same tokens") {
  const auto run = [](int num_blocks) {
    auto options = session_options();
    options.engine.block_size = 16;
    options.num_blocks = num_blocks;
    engine::Session session(load_model("a"), options);
    std::map<engine::RequestId, std::vector<std::int32_t>> tokens;
    for (int i = 0; i < 4; ++i) session.submit(generation(10 * i, 20, 60));
    while (!session.idle()) {
      for (const auto& event : session.step().tokens) tokens[event.request].push_back(event.token);
    }
    return std::pair(tokens, session.counters().preemptions);
  };
  const auto [roomy, none] = run(64);
  const auto [tight, some] = run(9);
  CHECK(none == 0);
  CHECK(some > 0);
  CHECK(roomy == tight);
}

TEST_CASE("ranks and threads change no bit") {
  for (const std::string model : {"a", "b", "a_pack"}) {
    for (const auto& [ranks, threads] : std::vector<std::pair<int, int>>{{1, 2}, {1, 3}, {2, 2}, {2, 3}, {2, 4}}) {
      CAPTURE(ranks);
      CAPTURE(threads);
      auto options = session_options();
      options.engine.max_num_batched_tokens = 100;
      check_options(options, model, ranks, threads);
    }
  }
}

TEST_CASE("two ranks run the other quantized forms") {
  for (const std::string model : {"a_awq", "a_fp8"}) check_options(session_options(), model, 2, 2);
}

TEST_CASE("logits do not depend on the rows beside them, on ranks or on threads") {
  for (const std::string name : {"a", "b"}) {
    const auto model = load_model(name);
    const auto& hidden = alone(name, "long_text");
    const std::size_t width = static_cast<std::size_t>(model->config().text.hidden_size);
    const int rows = static_cast<int>(hidden.size() / width);
    const auto all = model->logits(hidden, rows);
    std::vector<float> each;
    for (int row = 0; row < rows; ++row) {
      const auto one = model->logits(std::span(hidden).subspan(row * width, width), 1);
      each.insert(each.end(), one.begin(), one.end());
    }
    CHECK(all == each);
    for (const int ranks : {1, 2}) CHECK(load_model(name, ranks, 3)->logits(hidden, rows) == all);
  }
}
