// What a scale file says beside its scales: how they were made, how they moved, and what they change.
#pragma once

#include <string>
#include <vector>

#include "calibration/calibrator.h"

namespace qwenbench::calibration {

/// A JSON object's text for write_scale_file(): requests, ended_early, convergence[] (the scales of one method each;
/// settled is null where nothing could be judged), k_norm_bounds[], diagnostics[] (by layer, head, K or V, text or
/// image; at scale 1 and at the chosen scale), and where attention is in FP8 attention_probabilities (by layer and
/// query head).
std::string evidence_text(const Calibration& calibration, const std::vector<float>& key_bounds);

}  // namespace qwenbench::calibration
