#include "measure/experiment.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/sha256.h"
#include "base/thread_pool.h"
#include "calibration/resolve.h"
#include "compare/ceiling.h"
#include "compare/experiment.h"
#include "compare/pair.h"
#include "measure/attention_impact.h"
#include "measure/calibration.h"
#include "measure/engine_target.h"
#include "measure/environment.h"
#include "measure/findings.h"
#include "measure/load.h"
#include "measure/timing.h"
#include "measure/variants.h"
#include "quality/logits_file.h"
#include "quality/quality.h"
#include "report/decision_document.h"
#include "report/metrics.h"
#include "report/result_file.h"
#include "report/summary.h"
#include "report/table.h"
#include "workload/dataset.h"
#include "workload/locate_model.h"
#include "workload/workload.h"

namespace qwenbench::measure {
namespace {

std::int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::vector<report::SloLimit> limits_of(const profile::Profile& profile) {
  std::vector<report::SloLimit> limits;
  for (const profile::Slo& slo : profile.slo) limits.push_back({slo.metric, slo.stat, slo.max, slo.min});
  return limits;
}

/// One run. The phases are called in the order in which they stand; any may end the run by cancelled_.
class Experiment {
 public:
  Experiment(const profile::Profile& profile, const RunOptions& options, std::ostream& out, std::ostream& err)
      : profile_(profile), options_(options), out_(out), err_(err), start_(now_s()), slo_(limits_of(profile)) {}

  int run() {
    check();
    load();
    try {
      prepare_scales();
      if (!cancelled_) time();
      if (!cancelled_) score();
      if (!cancelled_) score_attention();
      if (!cancelled_ && options_.save_logits) save_logits();
    } catch (const Error& error) {
      if (error.code() != ExitCode::kCancelled) {
        keep_partial(error);
        throw;
      }
      cancelled_ = true;
    }
    finish();
    return write();
  }

 private:
  bool scored() const { return !profile_.quality.dataset.empty() && profile_.load_format != "dummy"; }

  // ---- before hours of work ----

  /// Everything that can be refused without weights.
  void check() {
    if (profile_.variants.empty()) throw InputError("the profile has no variants; name at least one");
    output_ = options_.output ? *options_.output : default_output(profile_.name, start_);
    require_writable(output_);
    if (options_.report) require_writable(*options_.report);
    if (options_.save_logits) require_writable(*options_.save_logits);
    if ((options_.save_logits || options_.reference_logits) && !scored()) {
      throw InputError(
          "logits are saved and compared over the quality set, which dummy weights or an empty "
          "quality.dataset leave out; name a dataset and a checkpoint");
    }
    for (const report::SloLimit& limit : slo_) report::metric_value(report::VariantResult{}, limit.metric, limit.stat);
    compare::check_ceiling_names(profile_.quality.ceiling);
    compare::check_minimum_effects(profile_.quality.minimum_effect);
    const workload::ModelLocation location = workload::locate_model(profile_, profile_.load_format == "dummy");
    directory_ = location.directory;
    renderer_.emplace(directory_);
    timed_ = workload::make_timing_workload(profile_, *renderer_);
    if (scored()) quality_ = workload::make_quality_workload(profile_, *renderer_);
    if (options_.reference_logits) {
      file_reference_ =
          quality::open_logits(*options_.reference_logits, quality_.requests, renderer_->config().text.vocab_size);
    }
  }

  void load() {
    if (options_.shared == nullptr || options_.shared->key != weights_key(profile_)) {
      load_weights();
    } else {
      weights_ = options_.shared->weights;
      model_ = options_.shared->model;
    }
    for (const profile::Variant& variant : profile_.variants) {
      variants_.push_back({variant, std::nullopt});
      report::VariantResult& result = result_.variants.emplace_back();
      result.name = variant.name;
      result.kv_cache_dtype = profile::name_of(variant.kv_cache_dtype);
    }
  }

  void load_weights() {
    if (options_.shared != nullptr) *options_.shared = {};  // the old ones go before the new ones come
    LoadedModel loaded = load_model(profile_, directory_, options_.progress, err_);
    weights_ = std::move(loaded.weights);
    model_ = std::move(loaded.model);
    if (options_.shared != nullptr) *options_.shared = {weights_key(profile_), weights_, model_};
  }

  // ---- scales ----

  void prepare_scales() {
    calibration::ScaleResolver resolver({*weights_, [this] { return calibrate(); }, profile::resolve_path});
    for (PreparedVariant& prepared : variants_) {
      profile::Variant variant = prepared.variant;
      if (weights_->is_dummy() && variant.kv_scales == "calibrate") variant.kv_scales = "unit";
      prepared.scales = resolver.resolve(variant);
      if (!cancelled_) continue;
      prepared.scales.reset();
      break;
    }
    const std::vector<float> key_bounds = calibration::key_norm_bounds(*weights_);
    for (std::size_t i = 0; i < variants_.size(); ++i) {
      result_.variants[i].kv_scales = describe_scales(variants_[i], key_bounds, statistics_.get());
    }
  }

  calibration::ScaleSet calibrate() {
    const workload::Workload set = workload::make_calibration_workload(profile_, *renderer_);
    Progress progress(err_, options_.progress, "calibrating", static_cast<std::int64_t>(set.requests.size()));
    calibration::Calibration done = run_calibration(profile_, {weights_, model_}, set, {}, progress);
    statistics_ = std::move(done.statistics);
    cancelled_ = done.cancelled;
    not_covered_ = coverage_warnings(profile_, set);
    return std::move(done.scales);
  }

  // ---- timing ----

  void time() {
    std::vector<TimedVariant> timed;
    for (std::size_t i = 0; i < variants_.size(); ++i) {
      timed.push_back({variants_[i].variant.name,
                       [this, i]() -> std::unique_ptr<Target> {
                         auto session = open_session(model_, profile_.engine, variants_[i]);
                         result_.variants[i].num_kv_blocks = session->num_blocks();
                         return std::make_unique<EngineTarget>(std::move(session), gpus_of(*model_));
                       },
                       decode_traffic(*model_, profile_.engine, variants_[i].variant.kv_cache_dtype)});
    }
    const profile::WorkloadOptions& workload = profile_.workload;
    const auto total = static_cast<std::int64_t>(timed_.requests.size() * variants_.size()) * workload.trials;
    Progress progress(err_, options_.progress, "timing", total);
    TimingOptions options;
    options.trials = workload.trials;
    options.max_concurrency = workload.max_concurrency;
    options.warmup_prompts = workload.warmup_prompts;
    options.on_finished = [&] { progress.advance(); };
    if (renderer_->has_tokenizer()) {
      options.detokenize = [this](std::span<const std::int32_t> ids) {
        return renderer_->tokenizer().decode(ids, true);
      };
    }
    timing_ = run_timing(timed, timed_.requests, options);
    cancelled_ = timing_.cancelled;
    for (std::size_t i = 0; i < variants_.size(); ++i) {
      result_.variants[i].trials = std::move(timing_.variants[i].trials);
      result_.variants[i].requests = std::move(timing_.variants[i].requests);
    }
  }

  // ---- quality ----

  quality::ScoredVariant scored_variant(std::size_t index, const profile::EngineOptions& engine) {
    return {variants_[index].variant.name, [this, index, engine] {
              return std::make_unique<quality::SessionScorer>(open_session(model_, engine, variants_[index]));
            }};
  }

  quality::ScoringOptions scoring_options() {
    quality::ScoringOptions options;
    options.hidden_size = model_->config().text.hidden_size;
    options.vocab_size = model_->config().text.vocab_size;
    options.logits = [this](std::span<const float> hidden, int rows) { return model_->logits(hidden, rows); };
    options.compare = [this](std::span<const float> reference, std::span<const float> variant,
                             std::span<const std::int32_t> targets, std::span<backend::TokenScore> out) {
      return model_->compare(reference, variant, targets, out);
    };
    options.reference_name =
        file_reference_ ? options_.reference_logits->filename().string() : profile_.variants[0].name;
    return options;
  }

  void score() {
    if (!scored()) return;
    std::vector<quality::ScoredVariant> variants;
    for (std::size_t i = 0; i < variants_.size(); ++i) variants.push_back(scored_variant(i, profile_.engine));
    quality::ScoringOptions options = scoring_options();
    const std::size_t passes = variants.size() + (file_reference_ ? 0 : 1);
    Progress progress(err_, options_.progress, "scoring quality",
                      static_cast<std::int64_t>(passes * quality_.requests.size()));
    options.on_scored = [&] { progress.advance(); };
    ThreadPool pool(model_->threads());
    quality::ScoringOutcome outcome;
    if (file_reference_) {
      outcome = quality::score_against(quality_.requests, *file_reference_, variants, options, pool);
    } else {
      const quality::ScoredVariant reference = variants[0];
      variants[0] = scored_variant(0, noise_floor_options(profile_.engine));
      outcome = quality::score_variants(quality_.requests, reference, variants, options, pool);
    }
    cancelled_ = outcome.cancelled;
    for (std::size_t i = 0; i < variants_.size(); ++i) summarize_quality(i, outcome.samples[i]);
  }

  void summarize_quality(std::size_t index, report::QualitySamples& samples) {
    if (samples.requests.empty()) return;
    if (index > 0 && profile_.workload.temperature == 0) {
      for (report::QualityRequest& request :
           compare_greedy(timed_.requests, timing_.variants[0], timing_.variants[index])) {
        samples.requests.push_back(std::move(request));
      }
    }
    result_.variants[index].quality = report::summarize_quality(samples);
  }

  /// For the warnings about q_scale and prob_scale: a few requests are enough to see what FP8 attention would change.
  void score_attention() {
    const bool any = std::any_of(variants_.begin(), variants_.end(), [](const auto& variant) { return variant.fp8(); });
    if (!scored() || !any || !model_->has_fp8_attention()) return;
    std::vector<workload::Request> requests;
    for (const std::size_t i : workload::spread(quality_.requests.size(), kImpactRequests)) {
      requests.push_back(quality_.requests[i]);
    }
    Progress progress(err_, options_.progress, "trying FP8 attention",
                      attention_impact_passes(variants_) * static_cast<std::int64_t>(requests.size()));
    impacts_ = measure_attention_impact(profile_, {weights_, model_}, variants_, requests, progress);
    cancelled_ = interrupted();
  }

  void save_logits() {
    quality::ScoringOptions options = scoring_options();
    Progress progress(err_, options_.progress, "saving logits", static_cast<std::int64_t>(quality_.requests.size()));
    options.on_scored = [&] { progress.advance(); };
    quality::save_logits(*options_.save_logits, quality_.requests, scored_variant(0, profile_.engine), options,
                         {{"variant", profile_.variants[0].name},
                          {"model_fingerprint", weights_->fingerprint()},
                          {"quality_requests_sha256", quality_.requests_sha256}});
  }

  // ---- the result ----

  void finish() {
    for (report::VariantResult& variant : result_.variants) report::summarize(variant, slo_);
    result_.start_time = iso_time(start_);
    result_.end_time = iso_time(now_s());
    result_.benchmark_id =
        sha256_hex(fmt::format("{} {} {} {}", start_, ::getpid(), timed_.requests_sha256, profile_.name)).substr(0, 16);
    result_.was_cancelled = cancelled_;
    result_.cli_command = options_.cli_command;
    result_.environment = host_environment();
    const profile::Switch pin = profile_.engine.pin_memory;
    result_.environment.pin_memory = model_->memory().is_gpu && pin != profile::Switch::kOff &&
                                     (pin == profile::Switch::kOn || !result_.environment.wsl);
    result_.profile_json = profile::to_json(profile_);
    result_.engine =
        describe_engine(profile_, *weights_, *model_, result_.variants.front(), result_.environment.memory_size);
    result_.workload = describe_workload(profile_, timed_);
    result_.warnings = find_warnings(profile_, variants_, result_, impacts_);
    for (const std::string& sentence : not_covered_) {
      result_.warnings.push_back({"CALIBRATION_WITHOUT_IMAGES", sentence, std::nullopt});
    }
    if (cancelled_) return;  // half an experiment is not judged
    compare::ExperimentOptions judged;
    judged.ceiling = profile_.quality.ceiling;
    judged.minimum_effect = profile_.quality.minimum_effect;
    judged.slo = slo_;
    compare::judge(result_, judged);
  }

  int write() {
    out_ << report::render_table(result_, {options_.color}) << std::flush;
    save_result();
    if (options_.report) write_file_atomically(*options_.report, report::render_decision(result_, output_.string()));
    err_ << fmt::format("{} written to {}\n", cancelled_ ? "partial results" : "results", output_.string());
    if (options_.report) err_ << fmt::format("decision document written to {}\n", options_.report->string());
    return static_cast<int>(compare::exit_code(result_));
  }

  /// The disk may have filled up since check(): what took hours to measure then goes among the temporary files.
  void save_result() {
    try {
      report::write_result(output_, result_);
    } catch (const InputError& error) {
      const std::filesystem::path rescue = std::filesystem::temp_directory_path() /
                                           fmt::format("{}-{}", result_.benchmark_id, output_.filename().string());
      report::write_result(rescue, result_);
      throw InputError(fmt::format("{}; the results lie in {}", error.what(), rescue.string()));
    }
  }

  /// The engine failed: what was measured before is written and marked, then the error goes on.
  void keep_partial(const Error& error) {
    const bool any = std::any_of(result_.variants.begin(), result_.variants.end(),
                                 [](const report::VariantResult& variant) { return !variant.trials.empty(); });
    if (!any) return;
    cancelled_ = true;
    finish();
    result_.warnings.push_back({"RUN_FAILED", error.what(), std::nullopt});
    save_result();
    err_ << fmt::format("partial results written to {}\n", output_.string());
  }

  const profile::Profile& profile_;
  const RunOptions& options_;
  std::ostream& out_;
  std::ostream& err_;
  std::int64_t start_;
  std::vector<report::SloLimit> slo_;
  std::filesystem::path output_, directory_;
  std::vector<AttentionImpact> impacts_;
  std::vector<std::string> not_covered_;  // by the calibration set
  std::optional<workload::Renderer> renderer_;
  workload::Workload timed_, quality_;
  std::unique_ptr<quality::ReferenceRows> file_reference_;
  std::shared_ptr<const model::WeightSource> weights_;
  std::shared_ptr<engine::Model> model_;
  std::vector<PreparedVariant> variants_;
  std::unique_ptr<calibration::KvStatistics> statistics_;  // where a calibration ran
  TimingOutcome timing_;
  report::Result result_;
  bool cancelled_ = false;
};

}  // namespace

std::string weights_key(const profile::Profile& profile) {
  profile::Profile key;
  key.model = profile.model;
  key.model_config = profile.model_config;
  key.load_format = profile.load_format;
  if (profile.load_format == "dummy") key.workload.seed = profile.workload.seed;
  if (profile.engine.device == profile::Device::kCpu) {
    key.engine.device = profile.engine.device;
    key.engine.tensor_parallel_size = profile.engine.tensor_parallel_size;
    key.engine.cpu_threads = profile.engine.cpu_threads;
  } else {  // a GPU's executor is made for its memory plan and its kernels' settings; the scheduler's alone may change
    key.engine = profile.engine;
    key.engine.enable_prefix_caching = key.engine.enable_chunked_prefill = false;
  }
  return profile::to_json(key);
}

int run_experiment(const profile::Profile& profile, const RunOptions& options, std::ostream& out, std::ostream& err) {
  return Experiment(profile, options, out, err).run();
}

}  // namespace qwenbench::measure
