// Scales from one kind of prompts, applied to the other: does a calibration set need both?
#pragma once

#include <string>
#include <vector>

#include "calibration/calibrator.h"
#include "measure/scale_scoring.h"

namespace qwenbench::measure {

struct CrossRow {
  std::string scales;                         // "unit", "from text", "from images", "from both"
  std::optional<double> text_kld, image_kld;  // from the BF16 cache, nats a token, over quality requests of the kind
  double text_saturated = 0, image_saturated = 0;  // largest share of K or V values in any layer, 0..1
};

/// `text` and `image`: calibrations on the requests without and with pictures; `both`: on all.
std::vector<CrossRow> cross_calibration(const profile::Profile& profile, const LoadedModel& loaded,
                                        const calibration::Calibration& text, const calibration::Calibration& image,
                                        const calibration::Calibration& both,
                                        std::span<const workload::Request> quality_requests, Progress& progress);

inline constexpr int kCrossRuns = 5;  // the BF16 cache included

std::string render_cross(const std::vector<CrossRow>& rows);

}  // namespace qwenbench::measure
