// Do scales arrive? Storing divides by a scale and reading multiplies by it. Four times or a quarter of the scales on
// both sides leaves every mantissa as it is, and so the outputs, where nothing leaves FP8's range; on one side alone it
// must move the outputs a lot. An engine that passes over the scales of one side fails one of both.
#pragma once

#include <string>
#include <vector>

#include "calibration/kv_statistics.h"
#include "calibration/scales.h"
#include "measure/scale_scoring.h"

namespace qwenbench::measure {

struct DeliveryRun {
  enum class Kind {
    kReference,  // what the others are compared with
    kAgrees,     // the same scales in writing and reading, and nothing leaves the range: must barely matter
    kLoses,      // the same scales in writing and reading, too small or too large for the range: shown, proves nothing
    kFault,      // one side does not get its scales: must matter
  };
  std::string name;
  Kind kind = Kind::kAgrees;
  std::vector<model::LayerKvScales> write, read;
  double k_saturated = 0, v_saturated = 0, k_flushed = 0, v_flushed = 0;  // shares of all K and V of the requests, 0..1
  double kld_mean = 0;                                                    // from the reference, nats a token
};

/// The reference first. All are made of the `chosen` scales, one entry a layer. The reference is four times these: they
/// are a quarter of it, then, and sixteen times these four times. Where they cut off what matters, as some methods do
/// on purpose, it is the least power of two of which a quarter does not. A quarter of the chosen scales is run too, and
/// they themselves where they are none of these; four times the reference for K or V on one side alone are the faults.
/// `seen`: K and V of the requests to score, from a BF16 cache. What matters is what adds 0.1 dB to the noise of a
/// head.
std::vector<DeliveryRun> plan_delivery(const calibration::ScaleSet& chosen, const calibration::KvStatistics& seen);

struct Delivery {
  std::vector<DeliveryRun> runs;
  bool passed = false;  // every fault moves the outputs by more than 0.01 nats, and ten times any run that agrees
  bool cancelled = false;
};

/// `progress` counts requests, those of every run.
Delivery verify_delivery(const profile::Profile& profile, const LoadedModel& loaded, std::vector<DeliveryRun> runs,
                         std::span<const workload::Request> requests, Progress& progress);

/// What Delivery::passed says of these.
bool delivered(std::span<const DeliveryRun> runs);

std::string render_delivery(const Delivery& delivery);

}  // namespace qwenbench::measure
