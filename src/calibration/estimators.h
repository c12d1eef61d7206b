// From statistics to scales. A scale is a dequantization multiplier: stored = e4m3(x / scale).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "calibration/kv_statistics.h"
#include "calibration/scales.h"
#include "model/weights.h"

namespace qwenbench::calibration {

/// absmax         largest magnitude / 448: nothing that calibration saw saturates
/// percentile     that percentile of the magnitudes / 448: what lies above saturates
/// mse            the smallest squared error of K (and V) after a round trip
/// attention_mse  the smallest squared error of attention's output (attention_error.h), from whole requests
/// bound          K from its norm's weight alone, without data: key_norm_bound() / 448; V stays 1
/// vllm           what vLLM's removed --calculate-kv-scales computed: max|K| / 200, max|V| / 100, max|Q| / 200
struct EstimatorOptions {
  std::string method = "absmax";
  std::string granularity = "tensor";  // one scale for all KV heads of a layer, or one for each: "head"
  double percentile = 99.99;           // in percent
  std::string round = "none";          // "pow2": up to the next power of two, exact in bf16 and free to fold
  int vllm_ranks = 1;                  // above 1: every rank takes the maxima of its own heads only, as vLLM did
};

/// Throws InputError for an unknown method, granularity or rounding.
void check_options(const EstimatorOptions& options);

/// "absmax", "percentile 99.9", "mse, pow2": as reports and scale files say it.
std::string method_text(const EstimatorOptions& options);

/// Of every method but "bound" and "attention_mse". Where nothing but zeros was seen the scale is 1, with a warning.
/// q_scale and prob_scale are set where the statistics hold Q.
ScaleSet estimate_scales(const KvStatistics& statistics, const EstimatorOptions& options);

/// max |K| that a layer can ever store, whatever the prompt: sqrt(head_dim) * max |k_norm.weight|, since RMSNorm makes
/// a vector of length sqrt(head_dim) and RoPE turns pairs. bf16 rounding may add a factor of 1 + 2^-8.
std::vector<float> key_norm_bounds(const model::WeightSource& weights);

/// Up to this bound no K can saturate at scale 1.
inline constexpr float kBoundFitsUnit = 448.0f / (1.0f + 0x1p-6f);

ScaleSet bound_scales(const std::vector<float>& key_bounds, const EstimatorOptions& options);

/// `round` of the options, applied to every k, v and q scale.
void round_scales(ScaleSet& set, const EstimatorOptions& options);

}  // namespace qwenbench::calibration
