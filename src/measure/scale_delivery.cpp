#include "measure/scale_delivery.h"

#include <fmt/format.h>

#include <algorithm>

namespace qwenbench::measure {
namespace {

std::vector<model::LayerKvScales> scaled(std::vector<model::LayerKvScales> layers, float k, float v) {
  for (model::LayerKvScales& layer : layers) {
    for (float& scale : layer.k) scale *= k;
    for (float& scale : layer.v) scale *= v;
  }
  return layers;
}

}  // namespace

Delivery verify_delivery(const profile::Profile& profile, const LoadedModel& loaded,
                         const calibration::ScaleSet& absmax, std::span<const workload::Request> requests,
                         Progress& progress) {
  const auto middle = scaled(absmax.layers, 8, 8);
  const auto k_only = scaled(middle, 4, 1), v_only = scaled(middle, 1, 4);
  constexpr auto kFp8 = profile::KvCacheDtype::kFp8E4M3;
  const std::vector<CacheSetting> settings{{"middle", kFp8, middle, {}, "auto"},
                                           {"all scales x 4", kFp8, scaled(middle, 4, 4), {}, "auto"},
                                           {"all scales / 4", kFp8, scaled(middle, 0.25f, 0.25f), {}, "auto"},
                                           {"K x 4 in writing alone", kFp8, k_only, middle, "auto"},
                                           {"K x 4 in reading alone", kFp8, middle, k_only, "auto"},
                                           {"V x 4 in writing alone", kFp8, v_only, middle, "auto"},
                                           {"V x 4 in reading alone", kFp8, middle, v_only, "auto"}};
  const auto samples = score_settings(profile, loaded, requests, settings, progress);
  Delivery delivery;
  delivery.cancelled = samples.empty();
  double worst_delivered = 0, best_fault = 1e300;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const DeliveryRun run{settings[i + 1].name, settings[i + 1].read_scales.empty(), mean_kld(samples[i]).value_or(0)};
    if (run.delivered) worst_delivered = std::max(worst_delivered, run.kld_mean);
    if (!run.delivered) best_fault = std::min(best_fault, run.kld_mean);
    delivery.runs.push_back(run);
  }
  delivery.passed = !delivery.cancelled && best_fault > 0.01 && best_fault > 10 * worst_delivered;
  return delivery;
}

std::string render_delivery(const Delivery& delivery) {
  std::string text = "delivery of scales                   KL divergence (nats/token)\n";
  for (const DeliveryRun& run : delivery.runs) {
    text += fmt::format("  {:<34}{:>11.3g}  {}\n", run.name, run.kld_mean,
                        run.delivered ? "writing and reading agree" : "a deliberate fault");
  }
  return text + (delivery.passed
                     ? "Scales arrive on both sides of the cache: what agrees barely matters, a fault does.\n"
                     : "SCALES DO NOT ARRIVE: a deliberate fault moves the outputs no more than none.\n");
}

}  // namespace qwenbench::measure
