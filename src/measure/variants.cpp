#include "measure/variants.h"

#include <algorithm>
#include <map>

#include "calibration/diagnostics.h"

namespace qwenbench::measure {
namespace {

using calibration::Kind;

void diagnose(const calibration::KvStatistics& statistics, report::LayerScales& row,
              const model::LayerKvScales& scales) {
  const calibration::Fp8Loss k = calibration::fp8_loss(statistics, Kind::kKey, row.layer, scales.k);
  const calibration::Fp8Loss v = calibration::fp8_loss(statistics, Kind::kValue, row.layer, scales.v);
  row.k_amax = statistics.largest(Kind::kKey, row.layer);
  row.v_amax = statistics.largest(Kind::kValue, row.layer);
  row.k_saturated = k.saturated;
  row.v_saturated = v.saturated;
  row.k_subnormal = k.subnormal;
  row.v_subnormal = v.subnormal;
  row.k_flushed = k.flushed;
  row.v_flushed = v.flushed;
  row.k_snr_db = k.snr_db();
  row.v_snr_db = v.snr_db();
}

/// One row a head and input, K and V side by side.
void add_heads(const std::vector<calibration::HeadLoss>& losses, std::vector<report::LayerScales>& layers) {
  std::map<std::tuple<int, int, calibration::Input>, report::HeadDiagnostics> rows;
  for (const calibration::HeadLoss& loss : losses) {
    report::HeadDiagnostics& row = rows[{loss.layer, loss.head, loss.input}];
    row.head = loss.head;
    row.input = loss.input == calibration::Input::kText ? "text" : "image";
    const bool key = loss.kind == Kind::kKey;
    (key ? row.k_amax : row.v_amax) = loss.amax;
    (key ? row.k_saturated : row.v_saturated) = loss.chosen.saturated;
    (key ? row.k_subnormal : row.v_subnormal) = loss.chosen.subnormal;
    (key ? row.k_flushed : row.v_flushed) = loss.chosen.flushed;
    (key ? row.k_snr_db : row.v_snr_db) = loss.chosen.snr_db();
  }
  for (report::LayerScales& layer : layers) layer.heads.emplace();
  for (const auto& [key, row] : rows) layers[static_cast<std::size_t>(std::get<0>(key))].heads->push_back(row);
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

report::KvScales describe_scales(const PreparedVariant& variant, const std::vector<float>& key_bounds,
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
  for (int layer = 0; layer < static_cast<int>(key_bounds.size()); ++layer) {
    const model::LayerKvScales& scales = set.layers.empty() ? unit : set.layers[static_cast<std::size_t>(layer)];
    report::LayerScales row = row_of(layer, scales);
    if (!set.amax.empty()) {
      row.k_amax = set.amax[static_cast<std::size_t>(layer)].k;
      row.v_amax = set.amax[static_cast<std::size_t>(layer)].v;
    }
    row.k_norm_bound = key_bounds[static_cast<std::size_t>(layer)];
    if (statistics != nullptr) diagnose(*statistics, row, scales);
    described.layers.push_back(std::move(row));
  }
  if (statistics != nullptr) add_heads(calibration::diagnose_heads(*statistics, set.layers), described.layers);
  return described;
}

}  // namespace qwenbench::measure
