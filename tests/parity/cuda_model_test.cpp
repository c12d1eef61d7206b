// The whole model on a GPU against the fp32 oracle. With fewer GPUs than ranks, ranks share one.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "backend/devices.h"
#include "base/error.h"
#include "calibration/calibrate.h"
#include "calibration/estimators.h"
#include "graph/plan.h"
#include "parity/engine_runs.h"
#include "parity/synthetic_checkpoint.h"
#include "profile/profile.h"
#include "quality/reduce.h"
#include "workload/workload.h"

using namespace qwenbench;
using namespace qwenbench::parity;

namespace {

/// Ranks that share a GPU must not wait for each other while the driver loads a kernel.
const bool kEagerLoading = setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0;

bool have_device() {
  static const bool have = [] {
    if (!backend::describe_gpus().gpus.empty()) return true;
    std::puts("skipped: no CUDA device");
    return false;
  }();
  return have;
}

/// Ranks that share a GPU talk through the host: there a kernel that waits for another rank can keep it from coming.
std::string communicator_of(int ranks) {
  return static_cast<int>(backend::describe_gpus().gpus.size()) < ranks ? "host" : "p2p";
}

std::shared_ptr<engine::Model> cuda_model(const std::filesystem::path& directory, int ranks, bool graphs = true,
                                          const std::string& all_reduce = "") {
  const auto source = model::open_checkpoint(directory);
  const graph::Plan plan = graph::build_plan(source->config(), ranks);
  const int devices = static_cast<int>(backend::describe_gpus().gpus.size());
  std::vector<std::shared_ptr<comm::Communicator>> communicators;
  if (ranks == 1) communicators.push_back(comm::make_single());
  if (ranks > 1)
    for (auto& communicator : comm::make_threads(ranks)) communicators.push_back(std::move(communicator));
  std::vector<std::unique_ptr<backend::Executor>> executors(static_cast<std::size_t>(ranks));
  ThreadPool pool(ranks);
  pool.run([&](int rank) {
    backend::ExecutorOptions options;
    options.rank = rank;
    options.device = rank % devices;
    options.engine.max_num_batched_tokens = 512;
    options.engine.max_model_len = 4096;
    options.engine.cuda_graphs = graphs;
    options.engine.all_reduce = all_reduce.empty() ? communicator_of(ranks) : all_reduce;
    executors[rank] = backend::make_cuda_executor(plan, *source, communicators[rank], options);
  });
  return engine::Model::from_executors(source->config(), std::move(executors), std::move(communicators), ranks);
}

double relative_error(std::span<const float> expected, std::span<const float> actual) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double d = static_cast<double>(actual[i]) - expected[i];
    difference += d * d;
    size += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(difference / size);
}

/// "a/text" -> relative L2 error of Hugging Face's bf16 model (scripts/fixtures/make_bf16_errors.py).
std::map<std::string, double> bf16_errors() {
  std::map<std::string, double> errors;
  std::ifstream file("fixtures/parity/bf16_errors.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    double error = 0;
    if (words >> name >> error) errors[name] = error;
  }
  return errors;
}

const std::filesystem::path kTiny = "../datasets/models/qwen3-vl-tiny",
                            kTinyInt4 = "../datasets/models/qwen3-vl-tiny-w4a16";

/// Teacher-forced requests of the quality set: `count` of them, evenly spread, or all (0).
workload::Workload some_questions(const std::filesystem::path& directory, int count = 100) {
  profile::Profile profile;
  profile.model = directory.string();
  profile.quality.dataset = "../datasets/quality.jsonl";
  profile.quality.num_samples = count;
  profile.engine.max_model_len = 4096;
  profile.engine.limit_mm_per_prompt["image"] = 4;
  workload::Renderer renderer(directory);
  return workload::make_quality_workload(profile, renderer);
}

engine::SessionOptions tiny_options(profile::KvCacheDtype dtype) {
  engine::SessionOptions options = session_options(dtype);
  options.engine.max_model_len = 4096;
  options.engine.max_num_batched_tokens = 512;
  options.engine.block_size = 16;
  options.num_blocks = 4096;
  return options;
}

/// Logits of every scored position of all requests, in order.
std::vector<float> score_all(engine::Model& model, const engine::SessionOptions& options,
                             std::span<const workload::Request> requests,
                             const std::shared_ptr<engine::Model>& shared) {
  engine::Session session(shared, options);
  std::vector<engine::RequestId> ids;
  for (const auto& request : requests) ids.push_back(session.submit(request));
  std::map<engine::RequestId, std::vector<float>> hidden;
  while (!session.idle())
    for (const auto& event : session.step().scores)
      hidden[event.request].insert(hidden[event.request].end(), event.hidden.begin(), event.hidden.end());
  std::vector<float> all;
  for (const auto id : ids) all.insert(all.end(), hidden[id].begin(), hidden[id].end());
  return model.logits(all, static_cast<int>(all.size()) / model.config().text.hidden_size);
}

double top1_agreement(std::span<const float> a, std::span<const float> b, int vocab) {
  std::size_t same = 0, rows = a.size() / static_cast<std::size_t>(vocab);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto top = [&](std::span<const float> x) {
      const auto r = x.subspan(row * vocab, static_cast<std::size_t>(vocab));
      return std::max_element(r.begin(), r.end()) - r.begin();
    };
    same += top(a) == top(b) ? 1 : 0;
  }
  return static_cast<double>(same) / static_cast<double>(rows);
}

}  // namespace

TEST_CASE("logits on a GPU are at most 1.5 times as far from fp32 as Hugging Face's bf16 model") {
  if (!have_device()) return;
  const auto allowed = bf16_errors();
  REQUIRE(!allowed.empty());
  for (const std::string model_name : {"a", "b"}) {
    for (const int ranks : {1, 2}) {
      if (model_name == "b" && ranks == 2) continue;  // one KV head and ragged sizes
      const auto model = cuda_model(checkpoint(model_name), ranks);
      for (const std::string name : {"text", "one_image", "two_images", "long_text"}) {
        const Case c = load_case(model_name + "/" + name);
        const double error = relative_error(c.logits, forward(*model, c, profile::KvCacheDtype::kBFloat16));
        MESSAGE(model_name << "/" << name << ", " << ranks << " ranks: " << error << ", Hugging Face "
                           << allowed.at(model_name + "/" + name));
        CHECK(error <= 1.5 * allowed.at(model_name + "/" + name));
      }
    }
  }
}

TEST_CASE("quantized forms on a GPU") {
  if (!have_device()) return;
  const double allowed = bf16_errors().at("a/two_images");
  for (const std::string form : {"a_pack", "a_awq", "a_fp8"}) {
    for (const int ranks : {1, 2}) {
      const auto model = cuda_model(checkpoint(form), ranks);
      const Case c = load_case(form + "/two_images", "a/two_images");
      const double error = relative_error(c.logits, forward(*model, c, profile::KvCacheDtype::kBFloat16));
      MESSAGE(form << ", " << ranks << " ranks: " << error);
      CHECK(error <= 2 * allowed);  // other weights than the plain model's
    }
  }
}

TEST_CASE("the trained model on a GPU: teacher-forced top-1 and scores") {
  if (!have_device()) return;
  for (const auto& directory : {kTiny, kTinyInt4}) {
    profile::EngineOptions cpu_options;
    cpu_options.device = profile::Device::kCpu;
    const auto cpu = engine::Model::load(*model::open_checkpoint(directory), cpu_options);
    // All of them: among 1,656 positions of 100 questions chance alone moves the share by 0.24 points (one deviation).
    const auto questions = some_questions(directory, 0);
    const int vocab = cpu->config().text.vocab_size;
    const auto oracle = score_all(*cpu, tiny_options(profile::KvCacheDtype::kFloat32), questions.requests, cpu);
    for (const int ranks : {1, 2}) {
      const auto gpu = cuda_model(directory, ranks);
      const auto logits = score_all(*gpu, tiny_options(profile::KvCacheDtype::kBFloat16), questions.requests, gpu);
      REQUIRE(logits.size() == oracle.size());
      const double agreement = top1_agreement(oracle, logits, vocab);
      MESSAGE(directory.filename().string()
              << ", " << ranks << " ranks: " << oracle.size() / vocab << " positions, error "
              << relative_error(oracle, logits) << ", same top-1 " << agreement);
      CHECK(agreement >= 0.99);
    }
  }
}

TEST_CASE("greedy decoding on a GPU: captured graphs, plain launches and 2 ranks") {
  if (!have_device()) return;
  const auto questions = some_questions(kTinyInt4);
  const auto generate = [&](const std::shared_ptr<engine::Model>& model, profile::KvCacheDtype dtype) {
    engine::Session session(model, tiny_options(dtype));
    std::map<engine::RequestId, std::vector<std::int32_t>> tokens;
    for (auto request : questions.requests) {
      request.forced.clear();
      request.max_tokens = 24;
      request.ignore_eos = true;
      session.submit(request);
    }
    while (!session.idle())
      for (const auto& event : session.step().tokens) tokens[event.request].push_back(event.token);
    return tokens;
  };
  const auto count_equal = [](const auto& a, const auto& b) {
    std::size_t same = 0, all = 0;
    for (const auto& [id, tokens] : a) {
      const auto& other = b.at(id);
      all += tokens.size();
      same +=
          static_cast<std::size_t>(std::mismatch(tokens.begin(), tokens.end(), other.begin()).first - tokens.begin());
    }
    return static_cast<double>(same) / static_cast<double>(all);
  };
  for (const auto dtype : {profile::KvCacheDtype::kBFloat16, profile::KvCacheDtype::kFp8E4M3}) {
    const auto with_graphs = generate(cuda_model(kTinyInt4, 1), dtype);
    const auto without = generate(cuda_model(kTinyInt4, 1, false), dtype);
    const auto two_ranks = generate(cuda_model(kTinyInt4, 2), dtype);
    REQUIRE(with_graphs.size() == questions.requests.size());
    MESSAGE("same tokens without graphs: " << count_equal(with_graphs, without)
                                           << ", on 2 ranks: " << count_equal(with_graphs, two_ranks));
    // Batches are padded in graphs, so that other kernels may run: equal but for near ties, which end a run early.
    CHECK(count_equal(with_graphs, without) > 0.8);
    CHECK(count_equal(with_graphs, two_ranks) > 0.8);
  }
}

TEST_CASE("2 ranks over peer access, also on one GPU: prompts and batches so small that all products are our own") {
  if (!have_device()) return;
  using Tokens = std::map<engine::RequestId, std::vector<std::int32_t>>;
  const auto generate = [](const std::shared_ptr<engine::Model>& model) {
    engine::Session session(model, tiny_options(profile::KvCacheDtype::kBFloat16));
    Tokens tokens;
    for (int i = 0; i < 2; ++i) {
      workload::Request request;
      request.id = "r" + std::to_string(i);
      for (int t = 0; t < 5 + i; ++t) request.prompt.push_back(40 + 17 * i + 3 * t);
      request.max_tokens = 40;
      request.ignore_eos = true;
      session.submit(request);
    }
    while (!session.idle())
      for (const auto& event : session.step().tokens) tokens[event.request].push_back(event.token);
    return tokens;
  };
  for (const auto& directory : {kTiny, kTinyInt4}) {
    const auto one = cuda_model(directory, 1), two = cuda_model(directory, 2, true, "p2p");
    CHECK(one->communicator().empty());
    CHECK(two->communicator() == "p2p");
    const Tokens expected = generate(one), first = generate(two), second = generate(two);
    CHECK(first == second);
    std::size_t same = 0, all = 0;
    for (const auto& [id, tokens] : expected) {
      const auto& other = first.at(id);
      all += tokens.size();
      same +=
          static_cast<std::size_t>(std::mismatch(tokens.begin(), tokens.end(), other.begin()).first - tokens.begin());
    }
    MESSAGE(directory.filename().string() << ": " << same << " of " << all << " tokens as on one rank");
    CHECK(same > all / 2);  // near ties end a run early
    const auto seconds = two->collective_seconds();
    REQUIRE(seconds.size() == 2);
    CHECK(seconds[0] > 0);
    CHECK(seconds[1] > 0);
  }
}

TEST_CASE("FP8 attention on a GPU is that of the CPU") {
  if (!have_device()) return;
  profile::EngineOptions cpu_options;
  cpu_options.device = profile::Device::kCpu;
  const auto cpu = engine::Model::load(*model::open_checkpoint(kTiny), cpu_options);
  const auto gpu = cuda_model(kTiny, 1);
  const auto questions = some_questions(kTiny);
  const auto some = std::span(questions.requests).first(20);
  engine::SessionOptions options = tiny_options(profile::KvCacheDtype::kFp8E4M3);
  const auto plain = score_all(*cpu, options, some, cpu);
  options.engine.attention_dtype = "fp8";
  const auto expected = score_all(*cpu, options, some, cpu), actual = score_all(*gpu, options, some, gpu);
  const double error = relative_error(expected, actual), effect = relative_error(plain, expected);
  MESSAGE("relative L2 error " << error << "; FP8 attention itself changes logits by " << effect);
  // The weights are rounded against the running maximum, which depends on the tiles: numerics.md's bound end to end.
  CHECK(error < 0.05);
  CHECK(relative_error(score_all(*gpu, tiny_options(profile::KvCacheDtype::kFp8E4M3), some, gpu), actual) > 0.01);
}

TEST_CASE("scores reduced on a GPU equal those of the host") {
  if (!have_device()) return;
  const Case c = load_case("a/long_text"), other = load_case("a/text");
  for (const int ranks : {1, 2}) {
    const auto model = cuda_model(checkpoint("a"), ranks);
    const int hidden = model->config().text.hidden_size, vocab = c.vocab, rows = 40;
    std::vector<float> x(static_cast<std::size_t>(rows) * hidden), y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
      y[i] = x[i] + 0.03f * static_cast<float>(std::cos(1.7 * static_cast<double>(i)));
    }
    std::vector<std::int32_t> targets;
    for (int row = 0; row < rows; ++row) targets.push_back(row * 7 % vocab);
    std::vector<backend::TokenScore> device(static_cast<std::size_t>(rows)), host(device.size());
    REQUIRE(model->compare(x, y, targets, device));
    ThreadPool pool(1);
    quality::compare_logits(model->logits(x, rows), model->logits(y, rows), vocab, targets, host, pool);
    for (int row = 0; row < rows; ++row) {
      CHECK(device[row].kld == doctest::Approx(host[row].kld).epsilon(1e-4));
      CHECK(device[row].ln_p == doctest::Approx(host[row].ln_p).epsilon(1e-5));
      CHECK(device[row].ln_p_reference == doctest::Approx(host[row].ln_p_reference).epsilon(1e-5));
      CHECK(device[row].same_top1 == host[row].same_top1);
      CHECK(device[row].hit == host[row].hit);
      CHECK(host[row].kld > 0);
    }
  }
}

TEST_CASE("scales calibrated on a GPU: 1 and 2 ranks within 1 %, and near the CPU's") {
  if (!have_device()) return;
  const auto questions = some_questions(kTiny);
  const auto calibrate = [&](const std::shared_ptr<engine::Model>& model) {
    const auto& text = model->config().text;
    calibration::KvStatistics statistics(text.num_layers, text.num_kv_heads, text.head_dim);
    engine::SessionOptions options = tiny_options(profile::KvCacheDtype::kBFloat16);
    options.observer = &statistics;
    calibration::SessionCalibrationRun run(std::make_unique<engine::Session>(model, options));
    const auto some = std::span(questions.requests).first(24);
    REQUIRE(calibration::collect_statistics(run, statistics, some));
    return calibration::estimate_scales(statistics, {});
  };
  profile::EngineOptions cpu_options;
  cpu_options.device = profile::Device::kCpu;
  const auto one = calibrate(cuda_model(kTiny, 1)), two = calibrate(cuda_model(kTiny, 2));
  const auto cpu = calibrate(engine::Model::load(*model::open_checkpoint(kTiny), cpu_options));
  for (std::size_t layer = 0; layer < one.layers.size(); ++layer) {
    CHECK(one.layers[layer].k[0] == doctest::Approx(two.layers[layer].k[0]).epsilon(0.01));
    CHECK(one.layers[layer].v[0] == doctest::Approx(two.layers[layer].v[0]).epsilon(0.01));
    CHECK(one.layers[layer].k[0] == doctest::Approx(cpu.layers[layer].k[0]).epsilon(0.02));
    CHECK(one.layers[layer].v[0] == doctest::Approx(cpu.layers[layer].v[0]).epsilon(0.02));
  }
}

namespace {

class Quitter : public backend::KvObserver {
 public:
  void observe(Kind, int layer, int head, const float*, int, std::int64_t, std::span<const std::uint8_t>) override {
    if (layer == 2 && head == 0) throw DeviceError("rank 0 gives up");
  }
};

}  // namespace

TEST_CASE("a rank that throws brings the run down with its own error") {
  if (!have_device()) return;
  const auto model = cuda_model(kTiny, 2);
  const auto questions = some_questions(kTiny);
  Quitter quitter;
  engine::SessionOptions options = tiny_options(profile::KvCacheDtype::kBFloat16);
  options.observer = &quitter;
  engine::Session session(model, options);
  session.submit(questions.requests[0]);
  CHECK_THROWS_WITH_AS(
      [&] {
        while (!session.idle()) session.step();
      }(),
      "rank 0 gives up", DeviceError);
  CHECK_THROWS_AS(session.step(), DeviceError);
}
