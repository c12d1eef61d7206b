// What attention that multiplies in FP8 would change, with the q_scale and prob_scale that servers warn of.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "measure/load.h"
#include "measure/scale_scoring.h"
#include "measure/variants.h"

namespace qwenbench::measure {

/// KL divergence from the BF16 cache, nats a token, of one FP8 variant's scales.
struct AttentionImpact {
  std::string variant;
  int requests = 0;
  double auto_kld = 0;               // K and V converted to 16 bit before the product
  double fp8_kld = 0;                // FP8 attention, q_scale 1, prob_scale 2^-8
  std::optional<double> from_k_kld;  // the same with q_scale = k_scale, where k_scale is not 1
  std::optional<double> own_q_kld;   // the same with the q_scale that the scales bring, where they bring one
};

inline constexpr int kImpactRequests = 16;

/// Of every FP8 variant. Empty where the device has no FP8 attention, or Ctrl-C ended it.
std::vector<AttentionImpact> measure_attention_impact(const profile::Profile& profile, const LoadedModel& loaded,
                                                      std::span<const PreparedVariant> variants,
                                                      std::span<const workload::Request> requests, Progress& progress);

/// Requests that it scores, for the progress bar.
std::int64_t attention_impact_passes(std::span<const PreparedVariant> variants);

}  // namespace qwenbench::measure
