// Two variants of one experiment, metric by metric.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "report/result.h"

namespace qwenbench::compare {

struct TestOptions {
  std::map<std::string, double> minimum_effect;  // see ExperimentOptions
  int bootstrap_resamples = 10000;
  std::uint64_t bootstrap_seed = 0;
  double alpha = 0.05;
  /// TPOT and end-to-end latency are functions of these: testing them too would only cost power.
  std::vector<std::string> timing_metrics{"median_ttft_ms", "median_itl_ms", "p99_itl_ms", "output_throughput",
                                          "decode_throughput"};
  bool between_files = false;  // the two variants come from different runs: their perplexities are compared too
};

/// p99 is tested only where every trial has this many samples.
inline constexpr std::int64_t kTestedSamplesP99 = 1000;

/// Throws InputError, naming the nearest, where a key of `minimum_effect` is no metric or group of metrics.
void check_minimum_effects(const std::map<std::string, double>& minimum_effect);

/// The smallest change of a metric that matters: the profile's, else the default (timings 2 %, kld_mean 0.001 nats,
/// ln_ppl_ratio and ppl 0.005, same_top1 0.005, accuracy 0.02).
double minimum_effect_of(const std::string& metric, const std::map<std::string, double>& overrides);

/// Every metric that both variants have, tested, corrected and judged (Holm over all of them). `reference` is the
/// experiment's reference: its own quality is the noise floor, and a difference below the floor is no difference, so no
/// minimum effect is smaller. Where `baseline` is the reference and was not scored, it stands for zero divergence.
std::vector<report::Comparison> compare_variants(const report::VariantResult& reference,
                                                 const report::VariantResult& baseline,
                                                 const report::VariantResult& candidate, const TestOptions& options);

}  // namespace qwenbench::compare
