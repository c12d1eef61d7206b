#include "workload/workload.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "workload/locate_model.h"
#include "workload/model_folder.h"

using namespace qwenbench;
using namespace qwenbench::workload;
using test::ModelFolder;

namespace {

profile::Profile make_profile(const ModelFolder& folder, const std::vector<std::string>& sets = {}) {
  std::vector<std::string> overrides{"model=" + folder.path().string(), "workload.max_tokens=4"};
  overrides.insert(overrides.end(), sets.begin(), sets.end());
  return profile::parse_profile("{}", "test", {}, overrides);
}

const char* const kChat = R"({"id": "hello", "messages": [{"role": "user", "content": "Hello"}], "answer": "Hello"})";

std::string picture_line(const char* id, int count) {
  const std::string image = R"({"type": "image_url", "image_url": {"url": ")" +
                            std::filesystem::absolute("model_image/fixtures/gray.png").string() + R"("}})";
  std::string content;
  for (int i = 0; i < count; ++i) content += image + ", ";
  return std::string(R"({"id": ")") + id + R"(", "messages": [{"role": "user", "content": [)" + content +
         R"({"type": "text", "text": "Hello"}]}]})";
}

/// The message of the InputError that making the timed workload gives.
std::string timing_error(const profile::Profile& profile, Renderer& renderer) {
  try {
    make_timing_workload(profile, renderer);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("timing: a chat line becomes the ids that HF's template and tokenizer give") {
  const ModelFolder folder;
  const std::string path = folder.write("p.jsonl", kChat);
  Renderer renderer(folder.path());
  const auto w =
      make_timing_workload(make_profile(folder, {"workload.dataset=" + path, "workload.num_prompts=3"}), renderer);
  REQUIRE(w.requests.size() == 3);
  const Request& first = w.requests[0];
  // case 0 of model_text/fixtures/chat.json
  CHECK(first.prompt ==
        std::vector<std::int32_t>{1571, 1310, 81, 198, 39, 692, 78, 1572, 198, 1571, 459, 72, 288, 267, 83, 198});
  CHECK(first.max_tokens == 4);
  CHECK(first.ignore_eos);
  CHECK(first.stop_ids == std::vector<std::int32_t>{1572, 1570});
  CHECK(first.arrival_s == 0);
  CHECK(w.requests[1].id == "hello#2");
  CHECK(w.requests[1].prompt == first.prompt);
  CHECK(w.requests[1].sampling.seed != first.sampling.seed);
  CHECK(w.images_sha256.empty());
}

TEST_CASE("timing: a line's max_tokens can only lower the profile's") {
  const ModelFolder folder;
  const std::string path =
      folder.write("p.jsonl", "{\"text\": \"Hello\", \"max_tokens\": 2}\n{\"text\": \"Hello\", \"max_tokens\": 9}");
  Renderer renderer(folder.path());
  const auto w =
      make_timing_workload(make_profile(folder, {"workload.dataset=" + path, "workload.num_prompts=2"}), renderer);
  CHECK(w.requests[0].max_tokens == 2);
  CHECK(w.requests[1].max_tokens == 4);
}

TEST_CASE("pictures: pads are as many as features, and one picture is processed once") {
  const ModelFolder folder;
  const std::string path = folder.write("p.jsonl", picture_line("a", 2) + "\n" + picture_line("b", 1));
  Renderer renderer(folder.path());
  const auto w = make_timing_workload(make_profile(folder, {"workload.dataset=" + path, "workload.num_prompts=2",
                                                            "engine.limit_mm_per_prompt.image=2"}),
                                      renderer);
  const Request& two = w.requests[0];
  REQUIRE(two.images.size() == 2);
  CHECK(two.images[0] == two.images[1]);
  CHECK(w.requests[1].images[0] == two.images[0]);
  CHECK(std::count(two.prompt.begin(), two.prompt.end(), test::kImagePad) == 2 * two.images[0]->num_tokens());
  CHECK(two.images[0]->pixel_values.size() ==
        static_cast<std::size_t>(two.images[0]->grid_h * two.images[0]->grid_w) * 1536);
  CHECK(w.images_sha256.size() == 64);
}

TEST_CASE("limits: the error names line, request and what to change") {
  const ModelFolder folder;
  const std::string path = folder.write("p.jsonl", std::string(kChat) + "\n" + picture_line("many", 2));
  const auto run = [&](std::vector<std::string> sets) {
    sets.push_back("workload.dataset=" + path);
    sets.push_back("workload.num_prompts=2");
    Renderer renderer(folder.path());
    return timing_error(make_profile(folder, sets), renderer);
  };
  CHECK(run({"engine.limit_mm_per_prompt.image=2"}) == "no error");
  CHECK(run({}) == path + ":2: request many: 2 pictures exceed engine.limit_mm_per_prompt.image 1");
  CHECK(run({"engine.max_model_len=19"}) == path +
                                                ":1: request hello: 16 prompt tokens and 4 max_tokens exceed "
                                                "max_model_len 19: raise engine.max_model_len or shorten it");
  CHECK(run({"engine.max_model_len=4096"}).find("exceeds what the model allows (2048") != std::string::npos);
}

TEST_CASE("limits: a picture that is none, an unknown role, pads typed by the user") {
  const ModelFolder folder;
  const auto run = [&](const std::string& line) {
    const std::string path = folder.write("p.jsonl", line);
    Renderer renderer(folder.path());
    return timing_error(make_profile(folder, {"workload.dataset=" + path}), renderer);
  };
  CHECK(
      run(R"({"id": "x", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "p.jsonl"}}]}]})")
          .find("p.jsonl:1: request x: ") != std::string::npos);
  CHECK(run(R"({"id": "y", "messages": [{"role": "robot", "content": "x"}]})").find("p.jsonl:1: request y: ") !=
        std::string::npos);
  CHECK(run(R"({"id": "z", "text": "a <|image_pad|>"})").find("p.jsonl:1: request z: a plain text") !=
        std::string::npos);
}

TEST_CASE("quality: the answer and its end are scored, or a text's second half") {
  const ModelFolder folder;
  const std::string path =
      folder.write("q.jsonl", std::string(kChat) + "\n{\"id\": \"t\", \"text\": \"Hello Hello Hello\"}");
  Renderer renderer(folder.path());
  const auto profile = make_profile(folder, {"quality.dataset=" + path});
  const auto w = make_quality_workload(profile, renderer);
  REQUIRE(w.requests.size() == 2);
  const Request& chat = w.requests[0];
  CHECK(chat.prompt.size() == 16);
  CHECK(chat.forced == std::vector<std::int32_t>{39, 692, 78, test::kImEnd});  // "Hello" as in the prompt above
  CHECK(chat.score_from == 0);
  const Request& text = w.requests[1];
  auto joined = text.prompt;
  joined.insert(joined.end(), text.forced.begin(), text.forced.end());
  CHECK(renderer.tokenizer().decode(joined) == "Hello Hello Hello");
  CHECK(text.prompt.size() == joined.size() / 2);

  const std::string bare = folder.write("bare.jsonl", R"({"id": "n", "messages": [{"role": "user", "content": "x"}]})");
  CHECK_THROWS_WITH_AS(make_quality_workload(make_profile(folder, {"quality.dataset=" + bare}), renderer),
                       (bare + ":1: request n: has no \"answer\" to score").c_str(), InputError);
}

TEST_CASE("quality: a Thinking model's thought is closed first, and not scored") {
  const ModelFolder folder(/*thinking=*/true);
  Renderer renderer(folder.path());
  const auto answer = renderer.render_answer("Hello");
  const std::vector<std::int32_t> scored(answer.ids.begin() + answer.score_from, answer.ids.end());
  CHECK(scored == std::vector<std::int32_t>{39, 692, 78, test::kImEnd});
  CHECK(renderer.tokenizer().decode({answer.ids.data(), static_cast<std::size_t>(answer.score_from)}) ==
        "\n</think>\n\n");
}

TEST_CASE("calibration: every token but the last passes through the cache") {
  const ModelFolder folder;
  const std::string path = folder.write("c.jsonl", kChat);
  Renderer renderer(folder.path());
  const auto w = make_calibration_workload(make_profile(folder, {"calibration.dataset=" + path}), renderer);
  REQUIRE(w.requests.size() == 1);
  CHECK(w.requests[0].prompt.size() == 16 + 3);
  CHECK(w.requests[0].forced == std::vector<std::int32_t>{test::kImEnd});
}

TEST_CASE("random: lengths in range, ordinary tokens only, pictures in their share and turn") {
  const ModelFolder folder;
  Renderer renderer(folder.path());
  const std::vector<std::string> sets{"workload.dataset=random",   "workload.num_prompts=40",
                                      "workload.input_len=[5, 9]", "workload.output_len=[2, 3]",
                                      "workload.image_share=0.25", "workload.image_sizes=[[64, 96], [32, 32]]"};
  const auto w = make_timing_workload(make_profile(folder, sets), renderer);
  int pictures = 0;
  for (const auto& r : w.requests) {
    const int tokens = r.images.empty() ? 0 : r.images[0]->num_tokens() + 2;
    CHECK(static_cast<int>(r.prompt.size()) - tokens >= 5);
    CHECK(static_cast<int>(r.prompt.size()) - tokens <= 9);
    CHECK(r.max_tokens >= 2);
    CHECK(r.max_tokens <= 3);
    for (auto it = r.prompt.begin() + tokens; it != r.prompt.end(); ++it) CHECK(*it < 1570);
    if (r.images.empty()) continue;
    CHECK(r.images[0]->grid_h == (pictures % 2 == 0 ? 4 : 2));
    CHECK(r.images[0]->grid_w == (pictures % 2 == 0 ? 6 : 2));
    ++pictures;
  }
  CHECK(pictures == 10);
  CHECK(make_timing_workload(make_profile(folder, sets), renderer).requests_sha256 == w.requests_sha256);
  auto other = sets;
  other.push_back("workload.seed=1");
  CHECK(make_timing_workload(make_profile(folder, other), renderer).requests_sha256 != w.requests_sha256);
}

TEST_CASE("random: works without a tokenizer, and avoids the added tokens") {
  const ModelFolder folder;
  std::filesystem::remove(folder.path() / "tokenizer.json");
  Renderer renderer(folder.path());
  CHECK_FALSE(renderer.has_tokenizer());
  CHECK(renderer.plain_tokens().size() == 1570);
  CHECK(make_timing_workload(make_profile(folder, {"workload.dataset=random"}), renderer).requests.size() == 64);
  CHECK_THROWS_AS(renderer.render_answer("x"), InputError);
}

TEST_CASE("shared prefixes: equal within a group, different between groups") {
  const ModelFolder folder;
  Renderer renderer(folder.path());
  const auto w = make_timing_workload(
      make_profile(folder, {"workload.dataset=random", "workload.num_prompts=6", "workload.input_len=4",
                            "workload.shared_prefix.groups=2", "workload.shared_prefix.tokens=30"}),
      renderer);
  const auto prefix = [&](int i) {
    const auto& prompt = w.requests[static_cast<std::size_t>(i)].prompt;
    return std::vector<std::int32_t>(prompt.begin(), prompt.begin() + 30);
  };
  CHECK(w.requests[0].prompt.size() == 34);
  CHECK(prefix(0) == prefix(2));
  CHECK(prefix(1) == prefix(5));
  CHECK(prefix(0) != prefix(1));
}

TEST_CASE("arrivals: at once, or gaps with the asked mean and burstiness") {
  const auto at_once = arrival_times(5, std::numeric_limits<double>::infinity(), 1, 0);
  CHECK(std::all_of(at_once.begin(), at_once.end(), [](double t) { return t == 0; }));
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    CAPTURE(burstiness);
    const int n = 40000;
    const auto times = arrival_times(n, 8.0, burstiness, 3);
    CHECK(std::is_sorted(times.begin(), times.end()));
    double mean = times.back() / n, variance = 0, previous = 0;
    for (const double t : times) variance += (t - previous - mean) * (t - previous - mean) / n, previous = t;
    CHECK(mean == doctest::Approx(1.0 / 8).epsilon(0.03));
    // A gamma distribution of shape b has a coefficient of variation of 1 / sqrt(b).
    CHECK(std::sqrt(variance) / mean == doctest::Approx(1 / std::sqrt(burstiness)).epsilon(0.04));
  }
}

TEST_CASE("hashes: every part of a request counts, and parts cannot flow into each other") {
  Request base;
  base.id = "a";
  base.prompt = {1, 2};
  base.forced = {3};
  const auto hash = [](const Request& request) { return hash_requests({&request, 1}); };
  const std::string original = hash(base);
  const auto differs = [&](auto change) {
    Request other = base;
    change(other);
    return hash(other) != original;
  };
  CHECK(differs([](Request& r) { r.id = "b"; }));
  CHECK(differs([](Request& r) { r.prompt = {1, 2, 3}, r.forced = {}; }));
  CHECK(differs([](Request& r) { r.max_tokens = 1; }));
  CHECK(differs([](Request& r) { r.ignore_eos = true; }));
  CHECK(differs([](Request& r) { r.sampling.temperature = 0.5; }));
  CHECK(differs([](Request& r) { r.sampling.seed = 1; }));
  CHECK(differs([](Request& r) { r.arrival_s = 0.5; }));
  CHECK(differs([](Request& r) { r.score_from = 1; }));
  CHECK(differs([](Request& r) { r.stop_ids = {7}; }));
  CHECK(hash(base) == original);
}

TEST_CASE("model: a missing one is replaced by its config only where that is enough") {
  const ModelFolder folder;
  const auto profile = make_profile(folder, {"model=org/absent-model", "model_config=" + folder.path().string()});
  CHECK(locate_model(profile, true).config_only);
  CHECK(locate_model(profile, true).directory == folder.path());
  CHECK_THROWS_WITH_AS(locate_model(profile, false), doctest::Contains("hf download org/absent-model"), InputError);
  CHECK_FALSE(locate_model(make_profile(folder), false).config_only);
}
