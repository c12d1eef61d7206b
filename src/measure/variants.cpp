#include "measure/variants.h"

#include <algorithm>

namespace qwenbench::measure {
namespace {

using Kind = backend::KvObserver::Kind;

void diagnose(const calibration::KvStatistics& statistics, report::LayerScales& row,
              const model::LayerKvScales& scales) {
  const calibration::Fp8Loss k = calibration::fp8_loss(statistics, Kind::kKey, row.layer, scales.k);
  const calibration::Fp8Loss v = calibration::fp8_loss(statistics, Kind::kValue, row.layer, scales.v);
  row.k_amax = statistics.of(Kind::kKey, row.layer).largest();
  row.v_amax = statistics.of(Kind::kValue, row.layer).largest();
  row.k_saturated = k.saturated;
  row.v_saturated = v.saturated;
  row.k_subnormal = k.subnormal;
  row.v_subnormal = v.subnormal;
  row.k_flushed = k.flushed;
  row.v_flushed = v.flushed;
  row.k_snr_db = k.snr_db();
  row.v_snr_db = v.snr_db();
}

report::LayerScales row_of(int layer, const model::LayerKvScales& scales) {
  report::LayerScales row;
  row.layer = layer;
  row.k_scale.assign(scales.k.begin(), scales.k.end());
  row.v_scale.assign(scales.v.begin(), scales.v.end());
  if (scales.q && !scales.q->empty()) row.q_scale = scales.q->front();
  if (scales.prob) row.prob_scale = *scales.prob;
  return row;
}

}  // namespace

std::unique_ptr<engine::Session> open_session(const std::shared_ptr<engine::Model>& model,
                                              const profile::EngineOptions& engine, const PreparedVariant& variant) {
  engine::SessionOptions options;
  options.engine = engine;
  options.kv_cache_dtype = variant.variant.kv_cache_dtype;
  if (variant.scales) options.kv_scales = variant.scales->layers;
  return std::make_unique<engine::Session>(model, options);
}

profile::EngineOptions noise_floor_options(profile::EngineOptions engine) {
  if (engine.enable_chunked_prefill) engine.max_num_batched_tokens = std::max(1, engine.max_num_batched_tokens / 2);
  engine.max_num_seqs = std::max(1, engine.max_num_seqs * 2 / 3);
  return engine;
}

report::KvScales describe_scales(const PreparedVariant& variant, int layers,
                                 const calibration::KvStatistics* statistics) {
  report::KvScales described;
  described.method = "none";
  if (!variant.scales) return described;
  const calibration::ScaleSet& set = *variant.scales;
  described.method = set.method;
  described.granularity = set.granularity;
  described.sha256 = calibration::scales_sha256(set.layers);
  described.calibration_set_sha256 = set.calibration_set_sha256;
  const model::LayerKvScales unit{{1.0f}, {1.0f}, std::nullopt, std::nullopt};
  for (int layer = 0; layer < layers; ++layer) {
    const model::LayerKvScales& scales = set.layers.empty() ? unit : set.layers[static_cast<std::size_t>(layer)];
    report::LayerScales row = row_of(layer, scales);
    if (!set.amax.empty()) {
      row.k_amax = set.amax[static_cast<std::size_t>(layer)].k;
      row.v_amax = set.amax[static_cast<std::size_t>(layer)].v;
    }
    if (statistics != nullptr) diagnose(*statistics, row, scales);
    described.layers.push_back(std::move(row));
  }
  return described;
}

}  // namespace qwenbench::measure
