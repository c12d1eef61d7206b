// Do scales arrive? The engine runs with scales four times as large and four times as small, which must barely matter,
// and with scales that one side of the cache does not get, which must matter a lot.
#pragma once

#include <string>
#include <vector>

#include "calibration/scales.h"
#include "measure/scale_scoring.h"

namespace qwenbench::measure {

struct DeliveryRun {
  std::string name;
  bool delivered = true;  // writing and reading have the same scales
  double kld_mean = 0;    // from the run with the middle scales, nats a token
};

struct Delivery {
  std::vector<DeliveryRun> runs;
  bool passed = false;  // every run with a fault is further off than ten times any without
  bool cancelled = false;
};

/// `absmax`: scales under which the largest K and V become 448. The middle ones are 8 times that, so that a quarter and
/// the fourfold both stay far from saturation and underflow.
Delivery verify_delivery(const profile::Profile& profile, const LoadedModel& loaded,
                         const calibration::ScaleSet& absmax, std::span<const workload::Request> requests,
                         Progress& progress);

inline constexpr int kDeliveryRuns = 7;  // the middle one included

std::string render_delivery(const Delivery& delivery);

}  // namespace qwenbench::measure
