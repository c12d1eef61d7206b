#include "measure/calibrate_kv.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calibration/evidence.h"
#include "calibration/scale_file.h"
#include "measure/calibration.h"
#include "measure/calibration_summary.h"
#include "measure/cross_calibration.h"
#include "measure/scale_delivery.h"
#include "workload/dataset.h"
#include "workload/locate_model.h"

namespace qwenbench::measure {
namespace {

constexpr int kDeliveryRequests = 24;

/// What vLLM warmed up with: a step of zeros.
workload::Workload dummy_step(const profile::Profile& profile, int max_model_len) {
  workload::Request request;
  request.id = "dummy";
  const int tokens = std::min(profile.engine.max_num_batched_tokens, max_model_len - 1);
  request.prompt.assign(static_cast<std::size_t>(tokens), 0);
  request.forced = {0};
  workload::Workload set;
  set.dataset_name = "dummy tokens";
  set.requests = {request};
  set.requests_sha256 = workload::hash_requests(set.requests);
  return set;
}

workload::Workload part_of(const workload::Workload& set, bool with_images) {
  workload::Workload part;
  part.dataset_name = set.dataset_name;
  for (const workload::Request& request : set.requests) {
    if (request.images.empty() != with_images) part.requests.push_back(request);
  }
  part.requests_sha256 = workload::hash_requests(part.requests);
  return part;
}

class CalibrateKv {
 public:
  CalibrateKv(const profile::Profile& profile, const CalibrateKvOptions& options, std::ostream& out, std::ostream& err)
      : profile_(profile),
        options_(options),
        out_(out),
        err_(err),
        output_(options.output.value_or(fmt::format("results/{}-kv-scales.json", profile.name))) {}

  int run() {
    check();
    loaded_ = load_model(profile_, directory_, options_.progress, err_);
    key_bounds_ = calibration::key_norm_bounds(*loaded_.weights);
    const std::vector<std::string> warnings =
        options_.vllm_dummy ? std::vector<std::string>{} : coverage_warnings(profile_, set_);
    for (const std::string& warning : warnings) err_ << "warning: " << warning << "\n";
    if (!calibrate()) return cancelled();
    write();
    out_ << render_calibration(profile_.model, calibration_, key_bounds_, set_) << std::flush;
    if (options_.cross && !cross()) return cancelled();
    return options_.verify ? verify() : static_cast<int>(ExitCode::kOk);
  }

 private:
  std::filesystem::path state() const { return output_.string() + ".partial"; }

  /// Everything that can be refused without weights.
  void check() {
    if (profile_.load_format == "dummy") {
      throw InputError("dummy weights have no scales worth a file; name a checkpoint (load_format auto)");
    }
    require_writable(output_);
    directory_ = workload::locate_model(profile_, false).directory;
    renderer_.emplace(directory_);
    for (const calibration::ExportFormat format : options_.exports) {
      calibration::check_export(format, renderer_->config(), profile_.calibration.granularity,
                                calibration::export_path(format, output_));
    }
    const bool vllm = profile_.calibration.method == "vllm";
    if (!vllm && (options_.vllm_dummy || options_.vllm_rank_local)) {
      throw InputError("--vllm-dummy and --vllm-rank-local belong to --method vllm");
    }
    set_ = vllm && options_.vllm_dummy
               ? dummy_step(profile_, workload::effective_max_model_len(profile_.engine, renderer_->config()))
               : workload::make_calibration_workload(profile_, *renderer_);
    if (options_.verify || options_.cross) quality_ = workload::make_quality_workload(profile_, *renderer_);
    if (options_.cross && (part_of(set_, true).requests.empty() || part_of(set_, false).requests.empty())) {
      throw InputError(
          fmt::format("--cross needs requests with and without pictures in the calibration set {}", set_.dataset_name));
    }
  }

  calibration::Calibration calibrate_on(const workload::Workload& set, const char* label, CalibrationRunOptions run) {
    Progress progress(err_, options_.progress, label, static_cast<std::int64_t>(set.requests.size()));
    run.vllm_ranks = options_.vllm_rank_local ? profile_.engine.tensor_parallel_size : 1;
    return run_calibration(profile_, loaded_, set, run, progress);
  }

  bool calibrate() {
    CalibrationRunOptions run;
    run.state = state();
    run.probabilities = true;
    calibration_ = calibrate_on(set_, "calibrating", run);
    if (calibration_.resumed_from > 0) {
      err_ << fmt::format("went on after {} requests of an interrupted calibration\n", calibration_.resumed_from);
    }
    return !calibration_.cancelled;
  }

  void write() {
    for (const std::string& warning : calibration_.scales.warnings) err_ << "warning: " << warning << "\n";
    calibration::write_scale_file(output_, calibration_.scales, loaded_.weights->fingerprint(),
                                  calibration::evidence_text(calibration_, key_bounds_));
    std::filesystem::remove(state());
    err_ << fmt::format("scales written to {}\n", output_.string());
    const calibration::ExportJob job{calibration_.scales, loaded_.model->config(), directory_,
                                     loaded_.weights->fingerprint(), profile_.engine.tensor_parallel_size};
    for (const calibration::ExportFormat format : options_.exports) {
      const std::filesystem::path path = calibration::export_path(format, output_);
      for (const std::string& loss : calibration::export_scales(format, job, path)) err_ << "warning: " << loss << "\n";
      err_ << fmt::format("exported to {}\n", path.string());
    }
  }

  bool cross() {
    const workload::Workload text = part_of(set_, false), image = part_of(set_, true);
    const calibration::Calibration from_text = calibrate_on(text, "calibrating on text", {});
    if (from_text.cancelled) return false;
    const calibration::Calibration from_images = calibrate_on(image, "calibrating on images", {});
    if (from_images.cancelled) return false;
    Progress progress(err_, options_.progress, "scoring",
                      kCrossRuns * static_cast<std::int64_t>(quality_.requests.size()));
    const auto rows =
        cross_calibration(profile_, loaded_, from_text, from_images, calibration_, quality_.requests, progress);
    if (!rows.empty()) out_ << "\n" << render_cross(rows) << std::flush;
    return !rows.empty();
  }

  int verify() {
    const auto count = std::min<std::size_t>(quality_.requests.size(), kDeliveryRequests);
    workload::Workload set;
    set.dataset_name = quality_.dataset_name;
    for (const std::size_t i : workload::spread(quality_.requests.size(), count))
      set.requests.push_back(quality_.requests[i]);
    const calibration::Calibration seen = look_at(set);
    if (seen.cancelled) return cancelled();
    std::vector<DeliveryRun> runs = plan_delivery(calibration_.scales, *seen.statistics);
    Progress progress(err_, options_.progress, "verifying", static_cast<std::int64_t>(runs.size() * count));
    const Delivery delivery = verify_delivery(profile_, loaded_, std::move(runs), set.requests, progress);
    if (delivery.cancelled) return cancelled();
    out_ << "\n" << render_delivery(delivery) << std::flush;
    return static_cast<int>(delivery.passed ? ExitCode::kOk : ExitCode::kRegression);
  }

  /// K and V of every request, whatever method makes the scales.
  calibration::Calibration look_at(const workload::Workload& set) {
    profile::Profile all = profile_;
    all.calibration.method = "absmax";
    all.calibration.settle_after = 0;
    Progress progress(err_, options_.progress, "looking at K and V", static_cast<std::int64_t>(set.requests.size()));
    return run_calibration(all, loaded_, set, {}, progress);
  }

  int cancelled() {
    if (std::filesystem::exists(state())) {
      err_ << fmt::format("interrupted: no scales were written; the same command goes on from {}\n", state().string());
    } else {
      err_ << "interrupted\n";
    }
    return static_cast<int>(ExitCode::kCancelled);
  }

  const profile::Profile& profile_;
  const CalibrateKvOptions& options_;
  std::ostream& out_;
  std::ostream& err_;
  std::filesystem::path output_, directory_;
  std::optional<workload::Renderer> renderer_;
  workload::Workload set_, quality_;
  LoadedModel loaded_;
  std::vector<float> key_bounds_;
  calibration::Calibration calibration_;
};

}  // namespace

int calibrate_kv(const profile::Profile& profile, const CalibrateKvOptions& options, std::ostream& out,
                 std::ostream& err) {
  return CalibrateKv(profile, options, out, err).run();
}

int check_scale_file(const profile::Profile& profile, const std::filesystem::path& file, std::ostream& out,
                     std::ostream& err) {
  const auto weights = model::open_checkpoint(workload::locate_model(profile, false).directory);
  std::string form;
  const calibration::ScaleSet set =
      calibration::read_scale_file(file, weights->config().text, weights->fingerprint(), &form);
  const auto [low, high] = [&set] {
    std::pair<float, float> range{set.layers[0].k[0], set.layers[0].k[0]};
    for (const model::LayerKvScales& layer : set.layers) {
      for (const auto* scales : {&layer.k, &layer.v}) {
        range.first = std::min(range.first, *std::min_element(scales->begin(), scales->end()));
        range.second = std::max(range.second, *std::max_element(scales->begin(), scales->end()));
      }
    }
    return range;
  }();
  out << fmt::format("{}: usable for {}\nform {}, method {}, per {}, {} layers, scales {:.4g} to {:.4g}\n",
                     file.string(), profile.model, form, set.method, set.granularity, set.layers.size(), low, high);
  if (!set.unchecked_model.empty()) err << "warning: " << set.unchecked_model << "\n";
  if (low == 1 && high == 1) out << "every scale is 1: the same as no scales\n";
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace qwenbench::measure
