// What scale 1 and the chosen scales do to every layer and head, and which layers need a scale at all.
#pragma once

#include <string>
#include <vector>

#include "calibration/fp8_loss.h"
#include "calibration/scales.h"

namespace qwenbench::calibration {

/// K or V of one KV head, text or image tokens.
struct HeadLoss {
  Kind kind = Kind::kKey;
  int layer = 0, head = 0;
  Input input = Input::kText;
  float amax = 0;
  Fp8Loss unit, chosen;  // at scale 1, and at the chosen scale
};

/// Heads that no token of the kind has reached are left out. An empty `scales` is scale 1.
std::vector<HeadLoss> diagnose_heads(const KvStatistics& statistics, const std::vector<model::LayerKvScales>& scales);

/// Of K or V in one layer, over all heads and tokens.
struct LayerLoss {
  Kind kind = Kind::kKey;
  int layer = 0;
  float amax = 0;
  Fp8Loss unit, chosen;

  /// dB of signal-to-noise that the chosen scale gains; 0 where neither loses anything.
  double gain_db() const;
};
std::vector<LayerLoss> diagnose_layers(const KvStatistics& statistics, const std::vector<model::LayerKvScales>& scales);

/// A scale that is no power of two rounds other values than scale 1 does, and by luck a little better or worse. Where
/// it gains more than this, something saturates or underflows at scale 1: the layer needs a scale.
inline constexpr double kNeedsScaleDb = 1.0;

}  // namespace qwenbench::calibration
