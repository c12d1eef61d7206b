#include "report/sample_result.h"

#include <fmt/format.h>

#include <limits>

#include "compare/experiment.h"
#include "report/summary.h"

namespace report = qwenbench::report;

namespace {

constexpr int kTrials = 4, kRequests = 60, kGaps = 7, kQuestions = 40, kTokens = 6;

report::RequestRecord request(int trial, int i, double slow) {
  report::RequestRecord r;
  r.id = fmt::format("p{:02d}", i);
  r.trial = trial;
  r.arrival = 0.01 * i;
  r.queue_time = 0.001 * (i % 3);
  r.ttft = slow * (0.010 + 0.0001 * i + 0.0001 * trial);
  for (int g = 0; g < kGaps; ++g) r.itls.push_back(slow * (0.0020 + 0.00001 * ((i + g + trial) % 9)));
  r.input_len = 20 + i;
  r.input_vision_len = i % 4 == 0 ? 16 : 0;
  r.output_len = kGaps + 1;
  r.text = i == 3 ? "a \"quoted\" | text\nof two lines é" : "text";
  if (trial == 1 && i == 59) {
    r.ttft.reset();
    r.itls.clear();
    r.output_len = 0;
    r.error = "aborted";
  }
  return r;
}

report::QualitySamples quality(double kld, int wrong) {
  report::QualitySamples samples;
  samples.reference = "reference";
  for (int i = 0; i < kQuestions; ++i) {
    report::QualityRequest r;
    r.id = fmt::format("q{:02d}", i);
    r.task = i % 2 == 0 ? "recall" : "image_qa";
    r.has_image = i % 2 == 1;
    r.n_tokens = kTokens;
    r.greedy_tokens = 8;
    r.exact_match_tokens = i < wrong ? 3 : 8;
    r.correct = i >= wrong;
    for (int t = 0; t < kTokens; ++t) {
      const double value = kld * (0.5 + 0.1 * ((i + t) % 11));
      samples.kld.push_back(static_cast<float>(value));
      samples.delta_p.push_back(static_cast<float>(-value / 2));
      samples.same_top1.push_back(i >= wrong || t > 0);
      samples.position.push_back(200 * t + i);
      r.kld_sum += value;
      r.delta_p_sum += -value / 2;
      r.delta_p_square_sum += value * value / 4;
      r.top1_matches += samples.same_top1.back();
      r.ln_p_reference_sum += -0.25;
      r.ln_p_sum += -0.25 - value / 4;
    }
    samples.requests.push_back(r);
  }
  return samples;
}

report::VariantResult variant(const char* name, const char* dtype, const char* method, double slow, double kld,
                              int wrong) {
  report::VariantResult v;
  v.name = name;
  v.kv_cache_dtype = dtype;
  v.kv_scales.method = method;
  v.num_kv_blocks = 128;
  if (std::string(method) == "absmax") {
    v.kv_scales.granularity = "head";
    v.kv_scales.sha256 = std::string(64, 'a');
    v.kv_scales.calibration_set_sha256 = std::string(64, 'b');
    for (int layer = 0; layer < 2; ++layer) {
      report::LayerScales scales;
      scales.layer = layer;
      scales.k_scale = {0.25, 0.5};
      scales.v_scale = {0.125};
      scales.k_amax = 200;
      scales.k_saturated = 0;
      scales.k_norm_bound = 300;
      report::HeadDiagnostics head;
      head.head = 1;
      head.input = "image";
      head.k_amax = 200;
      head.v_saturated = 0.25;
      scales.heads = {head};
      v.kv_scales.layers.push_back(scales);
    }
  }
  for (int t = 0; t < kTrials; ++t) {
    report::Trial trial;
    trial.index = t;
    trial.position = 3 * t;
    trial.duration = slow * (1.0 + 0.01 * t);
    trial.decode_tokens = 400;
    trial.decode_seconds = slow * (0.8 + 0.003 * t);
    trial.preemptions = t == 0 ? 1 : 0;
    trial.prefix_queried_tokens = 1000;
    trial.prefix_hit_tokens = 250;
    v.trials.push_back(trial);
    for (int i = 0; i < kRequests; ++i) v.requests.push_back(request(t, i, slow));
  }
  v.quality = report::summarize_quality(quality(kld, wrong));
  return v;
}

}  // namespace

report::Result sample_result() {
  report::Result result;
  result.benchmark_id = "tiny-vl-20250101-120000";
  result.start_time = "2025-01-01T12:00:00Z";
  result.end_time = "2025-01-01T12:01:00Z";
  result.cli_command = "qwenbench run --profile tiny-vl";
  result.environment.build_commit = std::string(40, '1');
  result.environment.git_is_dirty = false;
  result.environment.compiler = "GNU 12.2.0";
  result.environment.cpu_info = "Example CPU, 1 socket, 2 threads, AVX2";
  result.environment.cpu_cores = 2;
  result.environment.devices.push_back({"Example GPU", "GPU-1", "9.0", 1 << 30, 450.0, std::nullopt});
  result.profile_json = R"({"model": "tiny", "variants": {"reference": {}}})";
  result.engine = {"datasets/models/tiny",
                   std::string(64, 'c'),
                   "compressed-tensors w4a16 g32",
                   "checkpoint",
                   "cpu",
                   2,
                   16,
                   128,
                   {{1000, 2000, 300, 0}, {1000, 2000, 300, 0}}};
  result.workload = {"prompts",
                     std::string(64, 'd'),
                     std::string(64, 'e'),
                     "",
                     kRequests,
                     std::numeric_limits<double>::infinity(),
                     1.0,
                     16,
                     0};
  result.warnings = {{"KV_SCALE_UNIT", "variant baseline uses an FP8 cache with scale 1.0 in every layer",
                      "mean KL divergence 0.004 nats/token against the reference"},
                     {"PIN_MEMORY_OFF", "pinned memory is off", std::nullopt}};
  result.variants = {variant("reference", "bfloat16", "none", 1.0, 0, 0),
                     variant("baseline", "fp8_e4m3", "unit", 1.01, 0.004, 3),
                     variant("calibrated", "fp8_e4m3", "absmax", 1.01, 0.001, 1)};
  const std::vector<report::SloLimit> slo{{"ttft_ms", "p95", 20, std::nullopt},
                                          {"output_throughput", "", std::nullopt, 1000}};
  for (report::VariantResult& v : result.variants) report::summarize(v, slo);
  qwenbench::compare::ExperimentOptions options;
  options.ceiling = {{"kld_mean", 0.02}};
  options.slo = slo;
  options.bootstrap_resamples = 2000;
  qwenbench::compare::judge(result, options);
  return result;
}
