// Synthetic experiments with a known truth.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "report/result.h"
#include "report/summary.h"

namespace synthetic {

namespace report = qwenbench::report;

/// What is true of one variant.
struct Truth {
  double kld = 0;          // nats per token
  double wrong_share = 0;  // of the questions that the reference answers
  double slow = 1;         // factor on every time
};

struct Size {
  int questions = 700, tokens = 10, trials = 12, requests = 8;
};

/// Timings of `trials` with a log-normal factor per trial and metric (deviation `cv`): every trial has its own draw.
inline void add_timing(report::VariantResult& variant, double slow, const Size& size, double cv,
                       std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  const auto noise = [&] { return std::exp(cv * normal(random)); };
  for (int t = 0; t < size.trials; ++t) {
    const double first = 0.1 * slow * noise(), gap = 0.01 * slow * noise();
    report::Trial trial;
    trial.index = t;
    trial.duration = 2.0 * slow * noise();
    trial.decode_tokens = 100;
    trial.decode_seconds = 1.0 * slow * noise();
    variant.trials.push_back(trial);
    for (int i = 0; i < size.requests; ++i) {
      report::RequestRecord request;
      request.id = fmt::format("p{}", i);
      request.trial = t;
      // The prompts are the same in every trial: their spread is no noise.
      request.ttft = first * (1 + 0.05 * i);
      request.itls = {gap * (1 + 0.03 * i), gap};
      request.output_len = 3;
      variant.requests.push_back(request);
    }
  }
}

inline void add_quality(report::VariantResult& variant, const Truth& truth, const Size& size, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  report::QualitySamples samples;
  samples.reference = "reference";
  for (int i = 0; i < size.questions; ++i) {
    report::QualityRequest request;
    request.id = fmt::format("q{}", i);
    request.task = "recall";
    request.n_tokens = size.tokens;
    request.correct = uniform(random) >= truth.wrong_share;
    const double of_request = std::exp(0.3 * normal(random));
    for (int t = 0; t < size.tokens; ++t) {
      const double kld = truth.kld * of_request * std::exp(0.5 * normal(random) - 0.17);
      const bool same = uniform(random) >= truth.kld;
      request.kld_sum += kld;
      request.top1_matches += same;
      request.ln_p_reference_sum -= 0.5;
      request.ln_p_sum -= 0.5 + truth.kld * 0.2 * normal(random);
      samples.kld.push_back(static_cast<float>(kld));
      samples.delta_p.push_back(0);
      samples.same_top1.push_back(same);
      samples.position.push_back(t);
    }
    samples.requests.push_back(request);
  }
  variant.quality = report::summarize_quality(samples);
}

inline report::VariantResult variant(const std::string& name, const Truth& truth, std::uint64_t seed,
                                     const Size& size = {}, double cv = 0.005) {
  report::VariantResult result;
  result.name = name;
  std::mt19937_64 random(seed);
  add_quality(result, truth, size, random);
  add_timing(result, truth.slow, size, cv, random);
  report::summarize(result, {});
  return result;
}

/// reference, baseline, calibrated.
inline report::Result experiment(const Truth& baseline, const Truth& calibrated, const Size& size = {}) {
  report::Result result;
  result.variants = {variant("reference", {}, 1, size), variant("baseline", baseline, 2, size),
                     variant("calibrated", calibrated, 3, size)};
  return result;
}

}  // namespace synthetic
