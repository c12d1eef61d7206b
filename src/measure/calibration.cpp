#include "measure/calibration.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/thread_pool.h"
#include "workload/dataset.h"

namespace qwenbench::measure {
namespace {

/// Everything that a statistic depends on.
std::string state_key(const profile::Profile& profile, const LoadedModel& loaded, const workload::Workload& set,
                      int look_every) {
  const profile::CalibrationOptions& c = profile.calibration;
  return fmt::format("{} {} {} {} {} {} {} {}", loaded.weights->fingerprint(), set.requests_sha256, c.method,
                     c.granularity, c.percentile, c.round, profile.engine.attention_dtype, look_every);
}

bool shows_pictures(const std::string& dataset_name) {
  const workload::Dataset dataset = workload::read_dataset(dataset_name);
  return std::any_of(dataset.samples.begin(), dataset.samples.end(), [](const workload::Sample& sample) {
    return std::any_of(sample.messages.begin(), sample.messages.end(), [](const workload::Message& message) {
      return std::any_of(message.content.begin(), message.content.end(), [](const workload::Content& content) {
        return content.kind == workload::Content::Kind::kImage;
      });
    });
  });
}

}  // namespace

calibration::Calibration run_calibration(const profile::Profile& profile, const LoadedModel& loaded,
                                         const workload::Workload& set, const CalibrationRunOptions& options,
                                         Progress& progress) {
  const model::TextConfig& text = loaded.model->config().text;
  ThreadPool pool(loaded.model->threads());
  calibration::CalibratorOptions calibrator;
  calibrator.estimator = {profile.calibration.method, profile.calibration.granularity, profile.calibration.percentile,
                          profile.calibration.round, options.vllm_ranks};
  const bool queries = profile.engine.attention_dtype == "fp8";
  calibrator.shape = {text.num_layers, text.num_kv_heads, text.head_dim, queries ? text.num_heads : 0};
  calibrator.query_heads = text.num_heads;
  calibrator.key_bounds = calibration::key_norm_bounds(*loaded.weights);
  calibrator.probabilities = queries && options.probabilities;
  calibrator.settle_after = profile.calibration.settle_after;
  calibrator.state = options.state;
  calibrator.state_key = state_key(profile, loaded, set, calibrator.look_every);
  calibrator.pool = &pool;
  calibrator.on_finished = [&progress](int requests) { progress.advance(requests); };
  const calibration::OpenRun open = [&](backend::KvObserver& observer) {
    engine::SessionOptions session;
    session.engine = profile.engine;
    session.engine.enable_prefix_caching = false;
    session.kv_cache_dtype = profile::KvCacheDtype::kBFloat16;
    session.observer = &observer;
    return std::make_unique<calibration::SessionCalibrationRun>(
        std::make_unique<engine::Session>(loaded.model, session));
  };
  calibration::Calibration result = calibration::calibrate(open, set.requests, calibrator);
  result.scales.calibration_set_sha256 = calibrator.estimator.method == "bound" ? "" : set.requests_sha256;
  return result;
}

std::vector<std::string> coverage_warnings(const profile::Profile& profile, const workload::Workload& set) {
  if (profile.calibration.method == "bound") return {};
  if (std::any_of(set.requests.begin(), set.requests.end(),
                  [](const auto& request) { return !request.images.empty(); }))
    return {};
  const auto asks = [&](const std::string& name) {
    return !name.empty() && (name == "random" ? profile.workload.random.image_share > 0 : shows_pictures(name));
  };
  if (!asks(profile.workload.dataset) && !asks(profile.quality.dataset)) return {};
  return {
      fmt::format("no request of the calibration set {} shows a picture, though the prompts do: what K and V of "
                  "image tokens look like is not known",
                  set.dataset_name)};
}

}  // namespace qwenbench::measure
