// `qwenbench calibrate-kv`: from a profile to a scale file.
#pragma once

#include <filesystem>
#include <optional>
#include <ostream>
#include <vector>

#include "base/progress.h"
#include "calibration/scale_export.h"
#include "profile/profile.h"

namespace qwenbench::measure {

struct CalibrateKvOptions {
  std::optional<std::filesystem::path> output;  // unset: results/<profile>-kv-scales.json
  std::vector<calibration::ExportFormat> exports;
  bool verify = false;                             // the delivery test
  bool cross = false;                              // the matrix of text and images
  bool vllm_rank_local = false;                    // method vllm: every rank its own maxima
  bool vllm_dummy = false;                         // method vllm: a step of dummy tokens, as its warm-up was
  ProgressStyle progress = ProgressStyle::kLines;  // on `err`
};

/// The summary goes to `out`, progress and paths to `err`. An interrupted calibration leaves no scale file but
/// OUTPUT.partial, from which the same command goes on. Returns the exit code: 0; 1 where --verify finds that scales do
/// not arrive; 130 after Ctrl-C.
int calibrate_kv(const profile::Profile& profile, const CalibrateKvOptions& options, std::ostream& out,
                 std::ostream& err);

/// `--check FILE`: reads a scale file of any form for the profile's model, and says what it is. Throws InputError where
/// it is refused; a warning to `err` where nothing in it says which model it is for.
int check_scale_file(const profile::Profile& profile, const std::filesystem::path& file, std::ostream& out,
                     std::ostream& err);

}  // namespace qwenbench::measure
