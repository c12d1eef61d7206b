// Checkpoints whose truth is known: the same function, other ranges of K or V (scripts/rewrite_kv_ranges.py). What the
// experiment says about them is asserted on quality alone. A longer version: scripts/known_truth.sh.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "measure/calibration.h"
#include "measure/experiment.h"
#include "measure/scale_scoring.h"
#include "model/safetensors.h"
#include "quality/scorer.h"
#include "report/result_file.h"

using namespace qwenbench;
using namespace qwenbench::measure;

namespace {

constexpr auto kFp8 = profile::KvCacheDtype::kFp8E4M3;
constexpr auto kBf16 = profile::KvCacheDtype::kBFloat16;
const std::string kModels = "../datasets/models/";

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("qwenbench-truth-" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

bool have_python() {
  static const bool found = std::system("python3 -c '' 2>/dev/null") == 0;
  if (!found) MESSAGE("skipped: python3 is needed to rewrite checkpoints");
  return found;
}

/// A checkpoint of this repository, rewritten; returns its folder.
std::string rewritten(const Folder& folder, const std::string& model, const std::string& arguments) {
  const std::string target = (folder.path / "model").string();
  std::filesystem::remove_all(target);
  const std::string command =
      "python3 ../scripts/rewrite_kv_ranges.py " + kModels + model + " " + target + " " + arguments;
  REQUIRE(std::system(command.c_str()) == 0);
  return target;
}

profile::Profile profile_of(const std::string& model, int questions) {
  return profile::load_profile("tiny-vl", {"model=" + std::filesystem::absolute(model).string(),
                                           "quality.num_samples=" + std::to_string(questions),
                                           "calibration.num_samples=8", "engine.cpu_kv_cache_gib=0.06"});
}

/// A model and the questions that are asked of it.
struct Asked {
  profile::Profile profile;
  LoadedModel loaded;
  workload::Workload questions;

  Asked(const std::string& model, int count) : profile(profile_of(model, count)) {
    std::ostringstream nowhere;
    loaded = load_model(profile, model, ProgressStyle::kNone, nowhere);
    workload::Renderer renderer(model);
    questions = workload::make_quality_workload(profile, renderer);
  }

  /// Final hidden states of every scored position, request by request: equal bits are equal logits.
  std::vector<std::vector<float>> hidden(profile::KvCacheDtype dtype, float scale) const {
    engine::SessionOptions options;
    options.engine = profile.engine;
    options.kv_cache_dtype = dtype;
    const auto layers = static_cast<std::size_t>(loaded.model->config().text.num_layers);
    options.kv_scales.assign(layers, {{scale}, {scale}, {}, {}});
    quality::SessionScorer scorer(std::make_unique<engine::Session>(loaded.model, options));
    std::vector<std::vector<float>> states(questions.requests.size());
    const auto width = static_cast<std::size_t>(loaded.model->config().text.hidden_size);
    REQUIRE(scorer.score(questions.requests, [&](std::size_t request, int first, std::span<const float> rows) {
      states[request].resize(std::max(states[request].size(), first * width + rows.size()));
      std::copy(rows.begin(), rows.end(), states[request].begin() + static_cast<std::ptrdiff_t>(first * width));
    }));
    return states;
  }

  std::vector<model::LayerKvScales> calibrated(const std::string& granularity) const {
    profile::Profile calibrating = profile;
    calibrating.calibration.granularity = granularity;
    workload::Renderer renderer(profile.model);
    const workload::Workload set = workload::make_calibration_workload(calibrating, renderer);
    std::ostringstream nowhere;
    Progress progress(nowhere, ProgressStyle::kNone, "", 1);
    return run_calibration(calibrating, loaded, set, {}, progress).scales.layers;
  }

  /// KL divergence from the BF16 cache, nats a token, of each list of scales.
  std::vector<double> klds(const std::vector<std::vector<model::LayerKvScales>>& scales) const {
    std::vector<CacheSetting> settings{{"BF16", kBf16, {}, {}, "auto"}};
    for (const auto& one : scales) settings.push_back({"fp8", kFp8, one, {}, "auto"});
    std::ostringstream nowhere;
    Progress progress(nowhere, ProgressStyle::kNone, "", 1);
    std::vector<double> means;
    for (const auto& samples : score_settings(profile, loaded, questions.requests, settings, progress)) {
      means.push_back(mean_kld(samples).value());
    }
    return means;
  }
};

report::Result judged(const Folder& folder, const std::string& profile_name, int questions) {
  const auto profile = profile::load_profile(
      profile_name,
      {"quality.num_samples=" + std::to_string(questions), "calibration.num_samples=16", "workload.trials=1",
       "workload.num_prompts=1", "workload.max_tokens=2", "workload.warmup_prompts=0", "engine.cpu_kv_cache_gib=0.06"});
  RunOptions options;
  options.output = folder.path / "result.json";
  options.progress = ProgressStyle::kNone;
  std::ostringstream out, err;
  CHECK(run_experiment(profile, options, out, err) == 0);
  return report::read_result(*options.output);
}

double accuracy(const report::VariantResult& variant, const std::string& task) {
  for (const report::TaskSummary& summary : variant.quality->tasks) {
    if (summary.name == task) return summary.accuracy.value();
  }
  FAIL("no task ", task);
  return 0;
}

}  // namespace

TEST_CASE("the verdict: adopt-calibrated where scale 1 saturates, accept-baseline where it does not") {
  const Folder folder;
  const report::Result outlier = judged(folder, "tiny-vl-outlier", 40);
  REQUIRE(outlier.verdict.has_value());
  CHECK(outlier.verdict->status == "adopt-calibrated");
  CHECK(accuracy(outlier.variants[0], "recall") > 0.95);
  CHECK(accuracy(outlier.variants[1], "recall") < 0.1);
  CHECK(accuracy(outlier.variants[2], "recall") > 0.95);
  CHECK(*outlier.variants[1].quality->kld.mean > 100 * *outlier.variants[2].quality->kld.mean);

  const report::Result plain = judged(folder, "tiny-vl-full", 270);
  REQUIRE(plain.verdict.has_value());
  CHECK(plain.verdict->status == "accept-baseline");
  CHECK(accuracy(plain.variants[1], "recall") > 0.95);
}

TEST_CASE("with a BF16 cache every rewritten checkpoint computes the same bits") {
  if (!have_python()) return;
  const Folder folder;
  for (const std::string model : {"qwen3-vl-tiny", "qwen3-vl-tiny-w4a16"}) {
    const auto plain = Asked(kModels + model, 3).hidden(kBf16, 1);
    for (const char* arguments : {"--k-exponent 10", "--v-exponent -12", "--v-exponent 16 --v-heads 1",
                                  "--k-exponent 7 --k-channels 3 --v-exponent 9 --layers 0,4"}) {
      CAPTURE(arguments);
      const auto same = Asked(rewritten(folder, model, arguments), 3).hidden(kBf16, 1);
      CHECK(same == plain);
    }
  }
}

TEST_CASE("the tool refuses what would not be exact") {
  if (!have_python()) return;
  const Folder folder;
  const auto refused = [&](const std::string& model, const std::string& arguments, const std::string& why) {
    const std::string command = "python3 ../scripts/rewrite_kv_ranges.py " + model + " " +
                                (folder.path / "model").string() + " " + arguments + " 2>&1 | grep -q '" + why + "'";
    CAPTURE(arguments);
    CHECK(std::system(command.c_str()) == 0);
    CHECK_FALSE(std::filesystem::exists(folder.path / "model"));
  };
  refused(kModels + "qwen3-vl-tiny", "--k-exponent 250", "is not exact");
  refused(kModels + "qwen3-vl-tiny", "--v-exponent 3 --v-heads 2", "there are 2, from 0");
  refused(kModels + "qwen3-vl-tiny", "", "nothing to do");
  // Half precision has no room for 2^16, and groups by g_idx are no runs of channels.
  const std::string odd = (folder.path / "odd").string(), v = "model.language_model.layers.0.self_attn.v_proj.";
  std::filesystem::create_directories(odd);
  std::filesystem::copy(kModels + "qwen3-vl-tiny/config.json", odd);
  const auto zeros = [](const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    const auto bytes = static_cast<std::size_t>(shape[0] * shape[1]) * size_of(dtype);
    return model::SafetensorsItem{name, dtype, shape, [bytes](const model::AppendBytes& append) {
                                    append(std::string(bytes, '\0').data(), bytes);
                                  }};
  };
  const auto half = zeros(v + "weight", DType::kF16, {256, 2});
  const auto o = zeros("model.language_model.layers.0.self_attn.o_proj.weight", DType::kF16, {2, 512});
  model::write_safetensors(odd + "/model.safetensors", {half, o});
  refused(odd, "--v-exponent 3 --layers 0", "has dtype F16");
  model::write_safetensors(odd + "/model.safetensors", {half, o, zeros(v + "weight_g_idx", DType::kI32, {4, 1})});
  refused(odd, "--v-exponent 3 --layers 0", "weight_g_idx");
}

TEST_CASE("a uniform 2^a with scale 2^a is the plain model with scale 1, bit for bit") {
  if (!have_python()) return;
  const Folder folder;
  for (const std::string model : {"qwen3-vl-tiny", "qwen3-vl-tiny-w4a16"}) {
    const auto plain = Asked(kModels + model, 3).hidden(kFp8, 1);
    const Asked moved(rewritten(folder, model, "--k-exponent 6 --v-exponent 6"), 3);
    CHECK(moved.hidden(kFp8, 64) == plain);
    CHECK_FALSE(moved.hidden(kFp8, 1) == plain);
  }
}

TEST_CASE("one V head 2^16: a scale for each head keeps what one for all loses") {
  if (!have_python()) return;
  const Folder folder;
  const Asked asked(rewritten(folder, "qwen3-vl-tiny-w4a16", "--v-exponent 16 --v-heads 1"), 8);
  const auto klds = asked.klds({{}, asked.calibrated("tensor"), asked.calibrated("head")});
  CHECK(klds[0] > 0.5);           // scale 1: the moved head saturates
  CHECK(klds[1] > 20 * klds[2]);  // one scale: the other head underflows
  CHECK(klds[2] < 0.02);
}

TEST_CASE("V x 2^-12 underflows at scale 1, and calibration repairs it") {
  if (!have_python()) return;
  const Folder folder;
  const Asked asked(rewritten(folder, "qwen3-vl-tiny-w4a16", "--v-exponent -12"), 8);
  const auto klds = asked.klds({{}, asked.calibrated("tensor")});
  CHECK(klds[0] > 20 * klds[1]);
  CHECK(klds[1] < 0.02);
}
