#include "sweep/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "workload/locate_model.h"
#include "workload/workload.h"

namespace qwenbench::sweep {
namespace {

/// What a cell computes, in tokens; the same for cells with the same requests.
struct Tokens {
  double prefill = 0, decode = 0;  // of one trial of one variant
  double scored = 0, calibrated = 0;
};

/// FLOP/s and bytes/s that such a device reaches in practice, all ranks together.
struct Speed {
  double flops, bytes;
};

Speed speed_of(const engine::DeviceMemory& devices, const profile::EngineOptions& engine) {
  if (!devices.is_gpu) {
    const double cores = engine.cpu_threads > 0 ? engine.cpu_threads : available_cores();
    return {40e9 * cores, 8e9 * cores};
  }
  const double ranks = engine.tensor_parallel_size;
  if (devices.sm_version >= 90) return {350e12 * ranks, 2.5e12 * ranks};
  return {100e12 * ranks, 0.7e12 * ranks};
}

double length(const workload::Workload& set) {
  double sum = 0;
  for (const auto& request : set.requests) sum += static_cast<double>(request.prompt.size() + request.forced.size());
  return sum;
}

Tokens count_tokens(const profile::Profile& profile, const std::filesystem::path& directory) {
  workload::Renderer renderer(directory);
  Tokens tokens;
  const workload::Workload timed = workload::make_timing_workload(profile, renderer);
  tokens.prefill = length(timed);
  for (const auto& request : timed.requests) tokens.decode += request.max_tokens;
  if (profile.load_format == "dummy") return tokens;
  if (!profile.quality.dataset.empty()) tokens.scored = length(workload::make_quality_workload(profile, renderer));
  const bool calibrates = std::any_of(profile.variants.begin(), profile.variants.end(),
                                      [](const auto& variant) { return variant.kv_scales == "calibrate"; });
  if (calibrates) tokens.calibrated = length(workload::make_calibration_workload(profile, renderer));
  return tokens;
}

double seconds_of(const Tokens& tokens, const profile::Profile& profile, const model::ModelConfig& config,
                  const engine::DeviceMemory& devices) {
  const Speed speed = speed_of(devices, profile.engine);
  const double ranks = profile.engine.tensor_parallel_size;
  model::ModelConfig plain = config;
  plain.quantization = {};
  const double weights =
      static_cast<double>(engine::weight_bytes_per_rank(plain, profile.engine.tensor_parallel_size)) * ranks / 2;
  const double bytes =
      static_cast<double>(engine::weight_bytes_per_rank(config, profile.engine.tensor_parallel_size)) * ranks;
  const double batch = std::min(profile.engine.max_num_seqs, profile.workload.max_concurrency);
  const double prefill = 2 * weights / speed.flops;
  const double decode = std::max(bytes / speed.bytes / batch, prefill);
  const double variants = static_cast<double>(profile.variants.size());
  const double warm = 1.0 + std::min(1.0, static_cast<double>(profile.workload.warmup_prompts) /
                                              std::max(1, profile.workload.num_prompts));
  return profile.workload.trials * variants * warm * (tokens.prefill * prefill + tokens.decode * decode) +
         ((variants + 1) * tokens.scored + tokens.calibrated) * prefill + bytes / 1e9;
}

}  // namespace

struct Predictor::State {
  engine::DeviceMemory devices;
  std::map<std::string, Tokens> known;  // by everything that decides the requests
};

Predictor::Predictor(engine::DeviceMemory devices) : state_(std::make_unique<State>(State{std::move(devices), {}})) {}
Predictor::~Predictor() = default;

Prediction Predictor::operator()(const profile::Profile& profile) {
  Prediction prediction;
  try {
    const auto location = workload::locate_model(profile, true);
    const model::ModelConfig config = model::read_model_config(location.directory);
    prediction.memory = engine::plan_memory(config, profile.engine, state_->devices);
    for (const auto& variant : profile.variants) {
      engine::require_fits(*prediction.memory, engine::kv_capacity(config, *prediction.memory, variant.kv_cache_dtype));
    }
    profile::Profile requests = profile;
    requests.engine = {};
    requests.engine.max_model_len = profile.engine.max_model_len;
    requests.engine.limit_mm_per_prompt = profile.engine.limit_mm_per_prompt;
    requests.slo.clear();
    const auto [tokens, is_new] = state_->known.try_emplace(profile::to_json(requests));
    if (is_new && !location.config_only) tokens->second = count_tokens(profile, location.directory);
    prediction.seconds = seconds_of(tokens->second, profile, config, state_->devices);
  } catch (const Error& error) {
    prediction.problem = error.what();
  }
  return prediction;
}

}  // namespace qwenbench::sweep
