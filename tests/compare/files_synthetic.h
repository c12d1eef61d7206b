// Synthetic result files with a known truth, as runs.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "compare/files/run.h"
#include "compare/synthetic.h"

namespace synthetic {

/// One result file: "reference" and "baseline".
struct RunOf {
  double slow = 1, kld = 0.002, wrong_share = 0, ln_p_lost = 0;
  double run_deviation = 0;  // of this process's factor on every time
  double cv = 0.01;          // between trials
  int questions = 60, trials = 12, variants = 2, failed = 0;
  int max_num_seqs = 16;
  double slo_max = 0;  // of the median TTFT in ms; 0: no slo
  bool scored = true, cancelled = false, dirty = false, not_finite = false;
  std::string model_fingerprint = "model", requests = "requests", dataset = "dataset", gpu = "", weights = "checkpoint",
              driver = "1.0";
  std::uint64_t seed = 1;  // of times; quality has a seed of its own: one build always scores the same
};

inline void lose_likelihood(report::VariantResult& variant, double lost) {
  for (report::QualityRequest& request : variant.quality->requests) {
    request.ln_p_sum -= lost * static_cast<double>(request.n_tokens);
    request.ln_p_reference_sum -= lost * static_cast<double>(request.n_tokens);
  }
}

inline report::VariantResult variant_of(const RunOf& run, const std::string& name, double kld, double slow) {
  const Size size{.questions = run.questions, .tokens = 4, .trials = run.trials, .requests = 8};
  report::VariantResult variant;
  variant.name = name;
  std::mt19937_64 scored(7), timed(2 * run.seed + (name == "reference" ? 0 : 1) + 1000 * std::hash<double>{}(run.slow));
  if (run.scored) {
    add_quality(variant, {.kld = kld, .wrong_share = name == "reference" ? 0 : run.wrong_share}, size, scored);
    lose_likelihood(variant, run.ln_p_lost);
  }
  add_timing(variant, slow, size, run.cv, timed);
  for (int i = 0; i < run.failed; ++i) {
    variant.requests.at(static_cast<std::size_t>(i)).error = "aborted";
  }
  const report::SloLimit limit{"ttft_ms", "p50", run.slo_max, std::nullopt};
  report::summarize(variant, {&limit, run.slo_max > 0 ? 1u : 0u});
  return variant;
}

inline report::Result result_of(const RunOf& run) {
  std::mt19937_64 random(run.seed + 77);
  const double slow = run.slow * std::exp(run.run_deviation * std::normal_distribution<double>()(random));
  report::Result result;
  static int runs = 0;
  result.benchmark_id = fmt::format("run {}", ++runs);
  result.start_time = "2026-11-23T00:00:00Z";
  result.was_cancelled = run.cancelled;
  result.environment.cpu_info = "a CPU";
  result.environment.driver_version = run.driver;
  result.environment.git_is_dirty = run.dirty;
  if (!run.gpu.empty()) result.environment.devices = {{run.gpu, "", "9.0", 0, {}, {}}};
  result.profile_json = fmt::format(R"({{"name": "test", "engine": {{"max_num_seqs": {}}}}})", run.max_num_seqs);
  result.engine.model = "model";
  result.engine.model_fingerprint = run.model_fingerprint;
  result.engine.weights = run.weights;
  result.workload.requests_sha256 = run.requests;
  result.workload.dataset_sha256 = run.dataset;
  if (run.not_finite) result.warnings = {{"NOT_FINITE", "1 values are NaN or infinite", std::nullopt}};
  result.variants.push_back(variant_of(run, "reference", 0, slow));
  if (run.variants > 1) result.variants.push_back(variant_of(run, "baseline", run.kld, slow));
  if (run.slo_max > 0) {
    const report::SloLimit limit{"ttft_ms", "p50", run.slo_max, std::nullopt};
    for (const report::VariantResult& variant : result.variants) {
      const auto observed = variant.summary.ttft.p50;
      result.slo.push_back({limit, variant.name, observed, *observed <= run.slo_max});
    }
  }
  return result;
}

/// Runs of base0.json, base1.json, ..., new0.json, ...
inline std::vector<qwenbench::compare::Run> runs_of_files(const std::vector<RunOf>& base,
                                                          const std::vector<RunOf>& other) {
  std::vector<qwenbench::compare::Run> runs;
  const auto add = [&](const std::vector<RunOf>& files, const std::string& side) {
    for (std::size_t i = 0; i < files.size(); ++i) {
      RunOf run = files[i];
      if (side == "new") run.seed += 5000;
      const auto of_file =
          qwenbench::compare::runs_of(result_of(run), {fmt::format("{}{}.json", side, i), "", side}, {});
      runs.insert(runs.end(), of_file.begin(), of_file.end());
    }
  };
  add(base, "base");
  add(other, "new");
  return runs;
}

}  // namespace synthetic
