// What `calibrate-kv` prints: one screen.
#pragma once

#include <string>
#include <vector>

#include "calibration/calibrator.h"
#include "workload/workload.h"

namespace qwenbench::measure {

/// At most 100 columns, some 25 lines whatever the number of layers. Names the layers that need a scale, the worst
/// first, or says that none does. `set` is what was calibrated on.
std::string render_calibration(const std::string& model, const calibration::Calibration& calibration,
                               const std::vector<float>& key_bounds, const workload::Workload& set);

}  // namespace qwenbench::measure
