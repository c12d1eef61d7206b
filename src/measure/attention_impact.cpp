#include "measure/attention_impact.h"

#include <functional>

namespace qwenbench::measure {
namespace {

using Layers = std::vector<model::LayerKvScales>;

Layers with_q(Layers layers, const std::function<std::optional<std::vector<float>>(const model::LayerKvScales&)>& q) {
  for (model::LayerKvScales& layer : layers) layer.q = q(layer);
  return layers;
}

bool brings_q(const Layers& layers) { return !layers.empty() && layers.front().q.has_value(); }

/// Auto, then FP8 with q_scale 1, k_scale, and its own.
std::vector<CacheSetting> settings_of(const PreparedVariant& variant) {
  constexpr auto kFp8 = profile::KvCacheDtype::kFp8E4M3;
  const Layers& scales = variant.scales->layers;
  std::vector<CacheSetting> settings{{"auto", kFp8, scales, {}, "auto"}};
  settings.push_back({"q 1", kFp8, with_q(scales, [](const auto&) { return std::nullopt; }), {}, "fp8"});
  if (scales.empty()) return settings;
  settings.push_back({"q k", kFp8, with_q(scales, [](const auto& layer) { return layer.k; }), {}, "fp8"});
  if (brings_q(scales)) settings.push_back({"own q", kFp8, scales, {}, "fp8"});
  return settings;
}

}  // namespace

std::int64_t attention_impact_passes(std::span<const PreparedVariant> variants) {
  std::size_t passes = 1;
  for (const PreparedVariant& variant : variants) passes += variant.fp8() ? settings_of(variant).size() : 0;
  return static_cast<std::int64_t>(passes);
}

std::vector<AttentionImpact> measure_attention_impact(const profile::Profile& profile, const LoadedModel& loaded,
                                                      std::span<const PreparedVariant> variants,
                                                      std::span<const workload::Request> requests, Progress& progress) {
  if (!loaded.model->has_fp8_attention()) return {};
  std::vector<CacheSetting> settings{{"BF16", profile::KvCacheDtype::kBFloat16, {}, {}, "auto"}};
  for (const PreparedVariant& variant : variants) {
    if (!variant.fp8()) continue;
    for (CacheSetting& setting : settings_of(variant)) settings.push_back(std::move(setting));
  }
  const auto samples = score_settings(profile, loaded, requests, settings, progress);
  if (samples.empty()) return {};
  std::vector<AttentionImpact> impacts;
  std::size_t next = 0;
  const auto kld = [&] { return mean_kld(samples[next++]).value_or(0); };
  for (const PreparedVariant& variant : variants) {
    if (!variant.fp8()) continue;
    AttentionImpact& impact = impacts.emplace_back();
    impact.variant = variant.variant.name;
    impact.requests = static_cast<int>(requests.size());
    impact.auto_kld = kld();
    impact.fp8_kld = kld();
    if (!variant.scales->layers.empty()) impact.from_k_kld = kld();
    if (brings_q(variant.scales->layers)) impact.own_q_kld = kld();
  }
  return impacts;
}

}  // namespace qwenbench::measure
