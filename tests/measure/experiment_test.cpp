// Whole experiments on the embedded model: everything real but small.
#include "measure/experiment.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "measure/calibrate_kv.h"
#include "measure/calibration.h"
#include "measure/findings.h"
#include "measure/variants.h"
#include "report/result_file.h"
#include "workload/locate_model.h"

using namespace qwenbench;
using namespace qwenbench::measure;

namespace {

constexpr const char* kProfile = R"({
  "model": "datasets/models/qwen3-vl-tiny",
  "engine": {"device": "cpu", "max_model_len": 4096, "max_num_seqs": 4, "max_num_batched_tokens": 256, "block_size": 16,
             "limit_mm_per_prompt": {"image": 2}, "cpu_kv_cache_gib": 0.06},
  "variants": {"reference": {"kv_cache_dtype": "bfloat16"},
               "baseline": {"kv_cache_dtype": "fp8_e4m3", "kv_scales": "unit"},
               "calibrated": {"kv_cache_dtype": "fp8_e4m3", "kv_scales": "calibrate"}},
  "calibration": {"num_samples": 2},
  "workload": {"num_prompts": 3, "max_tokens": 4, "max_concurrency": 2, "trials": 2, "warmup_prompts": 1},
  "quality": {"num_samples": 4}
})";

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("qwenbench_experiment_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

struct Ran {
  int exit_code = -1;
  report::Result result;
  std::string out, err;
};

Ran run(const Folder& folder, const std::vector<std::string>& sets, RunOptions options = {}) {
  const auto profile = profile::parse_profile(kProfile, "test.json", folder.path, sets);
  options.output = folder.path / "result.json";
  options.cli_command = "qwenbench run test";
  std::ostringstream out, err;
  Ran ran;
  ran.exit_code = run_experiment(profile, options, out, err);
  ran.result = report::read_result(*options.output);
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

/// A stream that puts a folder where the result will go, as soon as the run reports progress.
class FolderInTheWay : public std::stringbuf {
 public:
  explicit FolderInTheWay(std::filesystem::path path) : path_(std::move(path)) {}

 protected:
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    std::filesystem::create_directory(path_);
    return std::stringbuf::xsputn(text, size);
  }

 private:
  std::filesystem::path path_;
};

void check_scale_rows(const report::VariantResult& variant, const std::string& method) {
  CHECK(variant.kv_scales.method == method);
  REQUIRE_FALSE(variant.kv_scales.layers.empty());
  for (const report::LayerScales& row : variant.kv_scales.layers) {
    CHECK(row.k_scale[0] > 0);
    CHECK(*row.k_amax > 0);
    if (method == "unit") CHECK(row.k_scale[0] == 1);
    if (method == "absmax") CHECK(row.k_scale[0] == doctest::Approx(*row.k_amax / 448));
    if (method == "absmax") CHECK(*row.k_saturated == 0);
    CHECK(row.k_snr_db.has_value());
    CHECK(*row.k_norm_bound >= *row.k_amax);
    REQUIRE(row.heads.has_value());
    CHECK(row.heads->size() == 2);  // two KV heads, and no pictures in these two requests
    CHECK(std::max((*row.heads)[0].k_amax, (*row.heads)[1].k_amax) == *row.k_amax);
    CHECK((*row.heads)[0].input == "text");
  }
}

}  // namespace

TEST_CASE("an experiment from profile to result file") {
  const Folder folder;
  const Ran ran = run(folder, {});
  CHECK(ran.exit_code == 0);
  const report::Result& result = ran.result;
  CHECK_FALSE(result.was_cancelled);
  CHECK(result.cli_command == "qwenbench run test");
  REQUIRE(result.variants.size() == 3);
  for (const report::VariantResult& variant : result.variants) {
    CAPTURE(variant.name);
    CHECK(variant.num_kv_blocks > 0);
    REQUIRE(variant.trials.size() == 2);
    CHECK(variant.requests.size() == 6);
    CHECK(variant.summary.completed == 6);
    CHECK(variant.summary.total_output_tokens == 24);
    CHECK(variant.summary.decode_throughput.has_value());
    for (const report::RequestRecord& request : variant.requests) {
      CHECK(request.ttft > 0.0);
      CHECK(request.itls.size() == 3);
      CHECK_FALSE(request.text.empty());
    }
    REQUIRE(variant.quality.has_value());
    CHECK(variant.quality->reference == "reference");
  }
  // FP8 blocks are half as large, and every variant has the whole budget.
  CHECK(result.variants[1].num_kv_blocks / 2 == result.variants[0].num_kv_blocks);
  CHECK(result.variants[0].kv_scales.method == "none");
  check_scale_rows(result.variants[1], "unit");
  check_scale_rows(result.variants[2], "absmax");

  const report::Quality& floor = *result.variants[0].quality;
  CHECK(floor.kld.max == 0.0);  // bit-identical on a CPU, whatever the batch
  CHECK(floor.same_top1 == 1.0);
  CHECK(floor.ppl == floor.ppl_reference);
  for (const int fp8 : {1, 2}) {
    const report::Quality& quality = *result.variants[static_cast<std::size_t>(fp8)].quality;
    CHECK(*quality.kld.mean > 0);
    CHECK(*quality.kld.mean < 1);
    CHECK(quality.n_tokens == floor.n_tokens);
    CHECK(quality.ppl_reference == floor.ppl_reference);
    CHECK(quality.first_divergence.n == 3);
  }
  REQUIRE_FALSE(result.warnings.empty());
  CHECK(result.warnings[0].code == "KV_SCALE_UNIT");
  CHECK(result.warnings[0].measured_impact.value_or("").find("KL divergence from reference") == 0);
  CHECK_FALSE(result.comparisons.empty());
  CHECK(result.verdict.has_value());
  CHECK(ran.out.find("calibrated") != std::string::npos);
  CHECK(ran.err.find("results written to ") != std::string::npos);
}

TEST_CASE("two runs score the same bits, whatever the batches, chunks and ranks; with FP8 attention, too") {
  const Folder folder;
  for (const std::string attention : {"auto", "fp8"}) {
    const std::vector<std::string> sets{"workload.trials=1", "workload.num_prompts=1", "quality.num_samples=2",
                                        "engine.attention_dtype=" + attention};
    auto others = sets;
    others.insert(others.end(),
                  {"engine.max_num_batched_tokens=100", "engine.max_num_seqs=2", "engine.tensor_parallel_size=2"});
    const Ran first = run(folder, sets);
    const Ran second = run(folder, others);
    for (std::size_t v = 0; v < 3; ++v) {
      CHECK(first.result.variants[v].quality->kld.mean == second.result.variants[v].quality->kld.mean);
      CHECK(first.result.variants[v].kv_scales.sha256 == second.result.variants[v].kv_scales.sha256);
    }
  }
}

TEST_CASE("logits saved by one run are the reference of another") {
  const Folder folder;
  RunOptions save;
  save.save_logits = folder.path / "logits.safetensors";
  const std::vector<std::string> sets{"workload.trials=1", "workload.num_prompts=1", "quality.num_samples=2"};
  const Ran saved = run(folder, sets, save);
  CHECK(saved.exit_code == 0);
  RunOptions load;
  load.reference_logits = save.save_logits;
  const Ran scored = run(folder, sets, load);
  CHECK(scored.exit_code == 0);
  CHECK(scored.result.variants[0].quality->kld.max == 0.0);
  CHECK(scored.result.variants[1].quality->kld.mean == saved.result.variants[1].quality->kld.mean);
  CHECK(scored.result.variants[1].quality->reference == "logits.safetensors");
  CHECK_THROWS_AS(run(folder, {"quality.num_samples=1"}, load), InputError);
  CHECK_THROWS_AS(run(folder, {"load_format=dummy"}, load), InputError);
}

TEST_CASE("dummy weights: timings, but neither quality nor verdict") {
  const Folder folder;
  const Ran ran = run(folder, {"load_format=dummy", "workload.trials=1"});
  CHECK(ran.exit_code == 0);
  CHECK(ran.result.engine.dummy_weights());
  CHECK_FALSE(ran.result.verdict.has_value());
  for (const report::VariantResult& variant : ran.result.variants) {
    CHECK_FALSE(variant.quality.has_value());
    CHECK(variant.summary.completed == 3);
  }
  CHECK(ran.result.warnings[0].code == "DUMMY_WEIGHTS");
}

TEST_CASE("Ctrl-C before anything was measured: an empty result, marked, exit 130") {
  const Folder folder;
  set_interrupted(true);
  const Ran ran = run(folder, {});
  set_interrupted(false);
  CHECK(ran.exit_code == 130);
  CHECK(ran.result.was_cancelled);
  CHECK_FALSE(ran.result.verdict.has_value());
  CHECK(ran.err.find("partial results written to") != std::string::npos);
}

TEST_CASE("a missed slo is exit 1, an unknown one is refused before any work") {
  const Folder folder;
  const std::vector<std::string> small{"workload.trials=1", "quality.dataset=\"\"", "calibration.num_samples=1",
                                       "slo=[{\"metric\": \"ttft_ms\", \"stat\": \"p50\", \"max\": 0.000001}]"};
  CHECK(run(folder, small).exit_code == 1);
  CHECK_THROWS_AS(run(folder, {"slo=[{\"metric\": \"ttft_s\", \"max\": 1}]"}), InputError);
}

TEST_CASE("shared prefixes: which requests found theirs in the cache, and how long each kind took") {
  const Folder folder;
  const std::vector<std::string> sets{"workload.trials=1",
                                      "workload.num_prompts=6",
                                      "workload.shared_prefix.groups=2",
                                      "workload.shared_prefix.tokens=64",
                                      "workload.max_concurrency=1",
                                      "quality.dataset=\"\"",
                                      "calibration.num_samples=1"};
  std::vector<std::string> cached = sets;
  cached.push_back("engine.enable_prefix_caching=true");
  const Ran ran = run(folder, cached);
  for (const report::VariantResult& variant : ran.result.variants) {
    REQUIRE(variant.summary.prefix);
    CHECK(*variant.summary.prefix->request_hit_rate == doctest::Approx(4.0 / 6));  // the first of each group misses
    CHECK(variant.summary.prefix->ttft_hit.n == 4);
    CHECK(variant.summary.prefix->ttft_miss.n == 2);
    for (std::size_t i = 0; i < 6; ++i) CHECK(variant.requests[i].cached_tokens.value_or(-1) == (i < 2 ? 0 : 64));
  }
  CHECK_FALSE(run(folder, sets).result.variants[0].summary.prefix);
}

TEST_CASE("runs that share weights load them once, and compute the same") {
  const Folder folder;
  const std::vector<std::string> sets{"workload.trials=1", "workload.num_prompts=1", "quality.num_samples=2"};
  SharedModel shared;
  RunOptions options;
  options.shared = &shared;
  const Ran first = run(folder, sets, options);
  const auto model = shared.model;  // kept: another model must not get its address
  CHECK(model != nullptr);
  const Ran second =
      run(folder, {"workload.trials=1", "workload.num_prompts=1", "quality.num_samples=2", "engine.max_num_seqs=2"},
          options);
  CHECK(shared.model == model);
  CHECK(second.result.variants[1].quality->kld.mean == first.result.variants[1].quality->kld.mean);
  run(folder, {"workload.trials=1", "workload.num_prompts=1", "quality.num_samples=2", "engine.cpu_threads=1"},
      options);
  CHECK(shared.model != model);
}

TEST_CASE("no place to write is found out first") {
  const Folder folder;
  std::ofstream(folder.path / "file") << "x";
  const auto profile = profile::parse_profile(kProfile, "test.json", folder.path, {});
  RunOptions options;
  options.output = folder.path / "file" / "result.json";
  std::ostringstream out, err;
  CHECK_THROWS_AS(run_experiment(profile, options, out, err), InputError);
  CHECK(err.str().empty());
}

TEST_CASE("a place that cannot be written any more costs no results") {
  Folder folder;
  const auto profile = profile::parse_profile(kProfile, "test.json", folder.path, {});
  RunOptions options;
  options.output = folder.path / "result.json";
  options.progress = ProgressStyle::kLines;
  FolderInTheWay meanwhile(*options.output);
  std::ostream err(&meanwhile);
  std::ostringstream out;
  std::string message;
  try {
    run_experiment(profile, options, out, err);
  } catch (const InputError& error) {
    message = error.what();
  }
  CHECK(out.str().find("KL divergence") != std::string::npos);
  const std::string before = "the results lie in ";
  REQUIRE(message.find(before) != std::string::npos);
  const std::filesystem::path rescue = message.substr(message.find(before) + before.size());
  CHECK(report::read_result(rescue).variants.size() == 3);
  std::filesystem::remove(rescue);
}

TEST_CASE("the noise floor is scored with other steps and other batches") {
  profile::EngineOptions engine;
  engine.max_num_batched_tokens = 512;
  engine.max_num_seqs = 16;
  CHECK(noise_floor_options(engine).max_num_batched_tokens == 256);
  CHECK(noise_floor_options(engine).max_num_seqs == 10);
  engine.enable_chunked_prefill = false;  // a prompt must fit one step
  CHECK(noise_floor_options(engine).max_num_batched_tokens == 512);
}

TEST_CASE("every warning about scales carries what it cost, or would") {
  const Folder folder;
  const std::vector<std::string> small{"workload.trials=1", "workload.num_prompts=1"};
  const auto find = [](const report::Result& result, const std::string& code) {
    for (const report::Warning& warning : result.warnings) {
      if (warning.code == code) return warning.measured_impact.value_or("not measured");
    }
    return std::string("no such warning");
  };
  const Ran plain = run(folder, small);
  CHECK(find(plain.result, "KV_SCALE_UNIT").find("KL divergence from reference") == 0);
  CHECK(find(plain.result, "Q_PROB_SCALE_UNIT").find("FP8 attention would change KL divergence") == 0);
  CHECK(find(plain.result, "Q_SCALE_FROM_K").find("with q_scale 1") != std::string::npos);
  auto in_use = small;
  in_use.push_back("engine.attention_dtype=fp8");
  const Ran fp8 = run(folder, in_use);
  CHECK(find(fp8.result, "Q_PROB_SCALE_UNIT").find("FP8 attention changes KL divergence") == 0);
  CHECK(find(fp8.result, "Q_SCALE_FROM_K") == "no such warning");  // calibration brings q_scale
  CHECK(fp8.result.variants[2].kv_scales.layers[0].q_scale.has_value());
  CHECK(fp8.result.variants[2].kv_scales.layers[0].prob_scale == 0.00390625);
  CHECK(*fp8.result.variants[1].quality->kld.mean != *plain.result.variants[1].quality->kld.mean);
  CHECK(*fp8.result.variants[0].quality->kld.mean == 0);  // a BF16 cache is not touched
}

TEST_CASE("calibrate-kv: Ctrl-C leaves no scale file, and the next run is whole") {
  const Folder folder;
  const auto profile = profile::parse_profile(kProfile, "test.json", folder.path, {"calibration.num_samples=20"});
  CalibrateKvOptions options;
  options.output = folder.path / "scales.json";
  std::ostringstream out, err;
  set_interrupted(true);
  CHECK(calibrate_kv(profile, options, out, err) == 130);
  set_interrupted(false);
  CHECK(out.str().empty());
  CHECK_FALSE(std::filesystem::exists(*options.output));
  CHECK(calibrate_kv(profile, options, out, err) == 0);
  CHECK(std::filesystem::exists(*options.output));
  CHECK(out.str().find("20 of 20 requests") != std::string::npos);
}

TEST_CASE("the tokens that a calibration claims are those that it saw") {
  const Folder folder;
  for (const char* method : {"absmax", "vllm"}) {
    const auto profile =
        profile::parse_profile(kProfile, "test.json", folder.path,
                               {"calibration.num_samples=12", std::string("calibration.method=") + method});
    std::ostringstream nowhere;
    const auto directory = workload::locate_model(profile, false).directory;
    const LoadedModel loaded = load_model(profile, directory, ProgressStyle::kNone, nowhere);
    workload::Renderer renderer(directory);
    const workload::Workload set = workload::make_calibration_workload(profile, renderer);
    Progress progress(nowhere, ProgressStyle::kNone, "", 1);
    const auto done = run_calibration(profile, loaded, set, {}, progress);
    const int head_dim = loaded.model->config().text.head_dim;
    CHECK(done.scales.samples == done.statistics->of(calibration::Kind::kKey, 0, 0).total() / head_dim);
    CHECK(done.scales.samples > 0);
    if (std::string(method) == "vllm") CHECK(done.scales.samples <= profile.engine.max_num_batched_tokens);
  }
}

TEST_CASE("PIN_MEMORY_OFF: what pageable memory costs this run, where a GPU says so") {
  profile::Profile profile;
  profile.variants = {{"reference", profile::KvCacheDtype::kBFloat16, "unit"}};
  const std::vector<PreparedVariant> variants{{profile.variants[0], std::nullopt}};
  report::Result result;
  result.variants.resize(1);
  result.engine.device = "cuda";
  result.engine.memory.resize(2);
  for (report::RankMemory& rank : result.engine.memory) rank.weights = 5'000'000'000;
  result.environment.devices.resize(1);
  result.environment.pin_memory = false;
  const MeasureCopies copies = [] { return backend::CopyBandwidth{50e9, 4e9}; };
  const auto warnings = find_warnings(profile, variants, result, {}, copies);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].code == "PIN_MEMORY_OFF");
  CHECK(warnings[0].measured_impact.value_or("") ==
        "copies to the GPU: 50.0 GB/s from pinned memory, 4.0 GB/s from pageable; the 10.00 GB of weights of this run "
        "take 2.50 s instead of 0.20 s");
  const auto unmeasured = find_warnings(profile, variants, result, {}, [] { return std::nullopt; });
  REQUIRE(unmeasured.size() == 1);
  CHECK_FALSE(unmeasured[0].measured_impact.has_value());
  result.environment.pin_memory = true;
  CHECK(find_warnings(profile, variants, result, {}, copies).empty());
}

TEST_CASE("scales that name no model are a warning of the run") {
  profile::Profile profile;
  profile.variants = {{"calibrated", profile::KvCacheDtype::kFp8E4M3, "scales.json"}};
  calibration::ScaleSet scales;
  scales.method = "file";
  scales.layers = {{{1.0f}, {1.0f}, std::vector<float>{1.0f}, {}}};
  scales.unchecked_model = "scales.json: names no model";
  report::Result result;
  result.variants.resize(1);
  result.variants[0].name = "calibrated";
  const auto warnings = find_warnings(profile, {{profile.variants[0], scales}}, result, {});
  const auto found = std::count_if(warnings.begin(), warnings.end(), [](const report::Warning& warning) {
    return warning.code == "KV_SCALE_MODEL_UNCHECKED" &&
           warning.message == "variant calibrated: scales.json: names no model";
  });
  CHECK(found == 1);
}

TEST_CASE("P2P_UNAVAILABLE: collectives bound what peer access could gain; a CPU has neither") {
  profile::Profile profile;
  profile.variants = {{"reference", profile::KvCacheDtype::kBFloat16, "unit"}};
  profile.engine.tensor_parallel_size = 2;
  const std::vector<PreparedVariant> variants{{profile.variants[0], std::nullopt}};
  report::Result result;
  result.variants.resize(1);
  result.variants[0].summary.comm_share = 0.125;
  CHECK(find_warnings(profile, variants, result, {}).empty());
  result.environment.devices.resize(2);
  result.environment.p2p = true;
  CHECK(find_warnings(profile, variants, result, {}).empty());
  result.environment.p2p = false;
  const auto warnings = find_warnings(profile, variants, result, {});
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].code == "P2P_UNAVAILABLE");
  CHECK(warnings[0].measured_impact.value_or("").find("at most 12.5 %") == 0);
}
