#include "measure/scale_delivery.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "calibration/fp8_loss.h"

namespace qwenbench::measure {
namespace {

using calibration::Fp8Loss;
using calibration::Kind;
using Layers = std::vector<model::LayerKvScales>;
using Run = DeliveryRun::Kind;

constexpr float kFactor = 4;  // a power of two: it changes no mantissa
constexpr float kMostRoom = 0x1p12f;
constexpr double kAddedNoise = 1.023;  // 0.1 dB
constexpr double kLeastFault = 0.01;   // nats a token: far above what another rounding does
constexpr double kLeastRatio = 10;

Layers scaled(Layers layers, float k, float v) {
  for (model::LayerKvScales& layer : layers) {
    for (float& scale : layer.k) scale *= k;
    for (float& scale : layer.v) scale *= v;
  }
  return layers;
}

/// Of every head: K of layer 0, V of layer 0, K of layer 1 ...
std::vector<Fp8Loss> head_losses(const calibration::KvStatistics& seen, const Layers& layers) {
  std::vector<Fp8Loss> losses;
  for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
    const model::LayerKvScales& scales = layers[static_cast<std::size_t>(layer)];
    for (const Kind kind : {Kind::kKey, Kind::kValue}) {
      for (int head = 0; head < seen.kv_heads(); ++head) {
        losses.push_back(calibration::fp8_loss(seen.of(kind, layer, head),
                                               calibration::scale_of(kind == Kind::kKey ? scales.k : scales.v, head)));
      }
    }
  }
  return losses;
}

/// A power of two changes no rounding: what these scales add to the noise of four times or a quarter of them is
/// saturation, or underflow.
bool leaves_range(const calibration::KvStatistics& seen, const Layers& layers) {
  const auto here = head_losses(seen, layers), above = head_losses(seen, scaled(layers, kFactor, kFactor)),
             below = head_losses(seen, scaled(layers, 1 / kFactor, 1 / kFactor));
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i].noise > kAddedNoise * std::min(above[i].noise, below[i].noise)) return true;
  }
  return false;
}

void add_shares(const calibration::KvStatistics& seen, DeliveryRun& run) {
  const auto heads = static_cast<std::size_t>(seen.kv_heads());
  Fp8Loss k, v;
  const auto losses = head_losses(seen, run.write);
  for (std::size_t i = 0; i < losses.size(); ++i) (i / heads % 2 == 0 ? k : v).add(losses[i]);
  run.k_saturated = k.saturated;
  run.v_saturated = v.saturated;
  run.k_flushed = k.flushed;
  run.v_flushed = v.flushed;
}

std::string times(float factor) {
  if (factor == 1) return "chosen scales";
  return factor > 1 ? fmt::format("chosen scales x {:.0f}", factor) : fmt::format("chosen scales / {:.0f}", 1 / factor);
}

const char* meaning(Run kind) {
  switch (kind) {
    case Run::kReference:
      return "reference";
    case Run::kAgrees:
      return "both sides agree";
    case Run::kLoses:
      return "both sides agree, range is lost";
    case Run::kFault:
      break;
  }
  return "a deliberate fault";
}

}  // namespace

std::vector<DeliveryRun> plan_delivery(const calibration::ScaleSet& chosen, const calibration::KvStatistics& seen) {
  const auto times_chosen = [&](float factor) { return scaled(chosen.layers, factor, factor); };
  std::vector<DeliveryRun> runs;
  const auto add = [&](std::string name, Run kind, Layers write, Layers read) {
    runs.push_back({std::move(name), kind, std::move(write), std::move(read)});
    add_shares(seen, runs.back());
  };
  const auto add_agreeing = [&](float factor) {
    const Layers layers = times_chosen(factor);
    add(times(factor), leaves_range(seen, layers) ? Run::kLoses : Run::kAgrees, layers, layers);
  };
  float room = kFactor;
  while (room < kMostRoom && leaves_range(seen, times_chosen(room / kFactor))) room *= 2;
  if (room >= kMostRoom) room = kFactor;  // one end of the range is lost or the other: no scale has room
  const Layers middle = times_chosen(room);
  add(times(room), Run::kReference, middle, middle);
  add_agreeing(room * kFactor);
  add_agreeing(room / kFactor);
  if (room != kFactor) add_agreeing(1);
  add_agreeing(1 / kFactor);
  const Layers k_only = scaled(middle, kFactor, 1), v_only = scaled(middle, 1, kFactor);
  add("K x 4 in writing alone", Run::kFault, k_only, middle);
  add("K x 4 in reading alone", Run::kFault, middle, k_only);
  add("V x 4 in writing alone", Run::kFault, v_only, middle);
  add("V x 4 in reading alone", Run::kFault, middle, v_only);
  return runs;
}

bool delivered(std::span<const DeliveryRun> runs) {
  double worst_agreeing = 0, least_fault = std::numeric_limits<double>::infinity();
  for (const DeliveryRun& run : runs) {
    if (run.kind == Run::kAgrees) worst_agreeing = std::max(worst_agreeing, run.kld_mean);
    if (run.kind == Run::kFault) least_fault = std::min(least_fault, run.kld_mean);
  }
  return least_fault > kLeastFault && least_fault > kLeastRatio * worst_agreeing;
}

Delivery verify_delivery(const profile::Profile& profile, const LoadedModel& loaded, std::vector<DeliveryRun> runs,
                         std::span<const workload::Request> requests, Progress& progress) {
  std::vector<CacheSetting> settings;
  settings.reserve(runs.size());
  for (const DeliveryRun& run : runs) {
    settings.push_back({run.name, profile::KvCacheDtype::kFp8E4M3, run.write,
                        run.kind == Run::kFault ? run.read : Layers(), profile.engine.attention_dtype});
  }
  const auto samples = score_settings(profile, loaded, requests, settings, progress);
  Delivery delivery{std::move(runs), false, samples.empty()};
  for (std::size_t i = 0; i < samples.size(); ++i) delivery.runs[i + 1].kld_mean = mean_kld(samples[i]).value_or(0);
  delivery.passed = !delivery.cancelled && delivered(delivery.runs);
  return delivery;
}

std::string render_delivery(const Delivery& delivery) {
  std::string text =
      "                         KL divergence     saturated           flushed to 0\n"
      "delivery of scales        (nats/token)       K        V        K        V\n";
  bool any_agrees = false;
  for (const DeliveryRun& run : delivery.runs) {
    any_agrees = any_agrees || run.kind == Run::kAgrees;
    const std::string kld = run.kind == Run::kReference ? "-" : fmt::format("{:.3g}", run.kld_mean);
    text += fmt::format("  {:<23}{:>13}", run.name, kld);
    for (const double share : {run.k_saturated, run.v_saturated, run.k_flushed, run.v_flushed}) {
      text += fmt::format("{:>7} %", share == 0 ? "0" : fmt::format("{:.2f}", 100 * share));
    }
    text += fmt::format("  {}\n", meaning(run.kind));
  }
  if (!delivery.passed) {
    return text + "SCALES DO NOT ARRIVE: a deliberate fault moves the outputs hardly more than none.\n";
  }
  return text + (any_agrees
                     ? "Scales arrive on both sides of the cache: what agrees barely matters, a fault does.\n"
                     : "Scales arrive on both sides of the cache: every fault matters. That others barely matter "
                       "could not be shown: all of them lose range.\n");
}

}  // namespace qwenbench::measure
