// calibrate-kv and the whole experiment on a GPU, with the trained model of this repository.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <sstream>

#include "backend/devices.h"
#include "calibration/scale_file.h"
#include "measure/calibrate_kv.h"
#include "measure/experiment.h"
#include "model/weights.h"
#include "report/result_file.h"

using namespace qwenbench;
using namespace qwenbench::measure;

namespace {

int gpu_count() {
  static const int count = static_cast<int>(backend::describe_gpus().gpus.size());
  static const bool said = count > 0 || std::puts("skipped: no CUDA device") > 0;
  static_cast<void>(said);
  return count;
}

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("qwenbench-gpu-" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

/// calibrate-kv --verify; the scales that it wrote.
calibration::ScaleSet calibrate(const Folder& folder, const std::string& device, int ranks, bool verify) {
  const auto profile = profile::load_profile(
      "tiny-vl", {"engine.device=" + device, "engine.tensor_parallel_size=" + std::to_string(ranks)});
  CalibrateKvOptions options;
  options.output = folder.path / (device + std::to_string(ranks) + ".json");
  options.verify = verify;
  options.progress = ProgressStyle::kNone;
  std::ostringstream out, err;
  CHECK(calibrate_kv(profile, options, out, err) == 0);
  CAPTURE(err.str());
  MESSAGE(out.str());
  const auto weights = model::open_checkpoint("../datasets/models/qwen3-vl-tiny-w4a16");
  return calibration::read_scale_file(*options.output, weights->config().text, weights->fingerprint());
}

void check_within(const calibration::ScaleSet& a, const calibration::ScaleSet& b, double share) {
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t layer = 0; layer < a.layers.size(); ++layer) {
    CAPTURE(layer);
    CHECK(a.layers[layer].k[0] == doctest::Approx(b.layers[layer].k[0]).epsilon(share));
    CHECK(a.layers[layer].v[0] == doctest::Approx(b.layers[layer].v[0]).epsilon(share));
  }
}

}  // namespace

TEST_CASE("calibrate-kv on a GPU: scales arrive, and are those of 2 ranks and of the CPU") {
  if (gpu_count() == 0) return;
  const Folder folder;
  const auto one = calibrate(folder, "cuda", 1, true);
  check_within(one, calibrate(folder, "cpu", 1, false), 0.02);
  if (gpu_count() > 1) check_within(one, calibrate(folder, "cuda", 2, true), 0.01);
}

TEST_CASE("the verdict on a GPU: adopt-calibrated where scale 1 saturates") {
  if (gpu_count() == 0) return;
  const Folder folder;
  const auto profile = profile::load_profile(
      "tiny-vl-outlier",
      {"engine.device=cuda", "quality.num_samples=40", "calibration.num_samples=16", "workload.trials=1",
       "workload.num_prompts=1", "workload.max_tokens=2", "workload.warmup_prompts=0"});
  RunOptions options;
  options.output = folder.path / "result.json";
  options.progress = ProgressStyle::kNone;
  std::ostringstream out, err;
  REQUIRE(run_experiment(profile, options, out, err) == 0);
  const report::Result result = report::read_result(*options.output);
  REQUIRE(result.verdict.has_value());
  MESSAGE(result.verdict->status << ", KL divergence " << *result.variants[1].quality->kld.mean << " at scale 1, "
                                 << *result.variants[2].quality->kld.mean << " calibrated");
  CHECK(result.verdict->status == "adopt-calibrated");
  CHECK(*result.variants[1].quality->kld.mean > 100 * *result.variants[2].quality->kld.mean);
}
