#include "calibration/diagnostics.h"

#include <array>
#include <cmath>

namespace qwenbench::calibration {
namespace {

constexpr std::array kStored{Kind::kKey, Kind::kValue};

std::span<const float> scales_of(const std::vector<model::LayerKvScales>& scales, int layer, Kind kind) {
  static const std::vector<float> unit{1.0f};
  if (scales.empty()) return unit;
  const model::LayerKvScales& its = scales[static_cast<std::size_t>(layer)];
  return kind == Kind::kKey ? its.k : its.v;
}

}  // namespace

std::vector<HeadLoss> diagnose_heads(const KvStatistics& statistics, const std::vector<model::LayerKvScales>& scales) {
  std::vector<HeadLoss> rows;
  for (int layer = 0; layer < statistics.layers(); ++layer) {
    for (const Kind kind : kStored) {
      for (int head = 0; head < statistics.kv_heads(); ++head) {
        for (const Input input : kInputs) {
          const MagnitudeHistogram& histogram = statistics.of(kind, layer, head, input);
          if (histogram.total() == 0) continue;
          const float scale = scale_of(scales_of(scales, layer, kind), head);
          rows.push_back(
              {kind, layer, head, input, histogram.largest(), fp8_loss(histogram, 1.0f), fp8_loss(histogram, scale)});
        }
      }
    }
  }
  return rows;
}

std::vector<LayerLoss> diagnose_layers(const KvStatistics& statistics,
                                       const std::vector<model::LayerKvScales>& scales) {
  std::vector<LayerLoss> rows;
  for (int layer = 0; layer < statistics.layers(); ++layer) {
    for (const Kind kind : kStored) {
      rows.push_back({kind, layer, statistics.largest(kind, layer),
                      fp8_loss(statistics, kind, layer, scales_of({}, layer, kind)),
                      fp8_loss(statistics, kind, layer, scales_of(scales, layer, kind))});
    }
  }
  return rows;
}

double LayerLoss::gain_db() const {
  if (unit.noise <= 0) return 0;
  return 10 * std::log10(unit.noise / std::max(chosen.noise, unit.noise * 1e-12));
}

}  // namespace qwenbench::calibration
