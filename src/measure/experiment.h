// One experiment, from a profile to a result file: load, calibrate, time, score, judge, write.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "base/progress.h"
#include "profile/profile.h"

namespace qwenbench::model {
class WeightSource;
}
namespace qwenbench::engine {
class Model;
}

namespace qwenbench::measure {

/// Weights that runs of one process share: kept from one run to the next where weights_key() stays the same.
struct SharedModel {
  std::string key;
  std::shared_ptr<const model::WeightSource> weights;
  std::shared_ptr<engine::Model> model;
};

/// Equal for profiles that would load the same weights in the same way.
std::string weights_key(const profile::Profile& profile);

struct RunOptions {
  std::optional<std::filesystem::path> output;            // the result file; unset: results/<profile>-<UTC time>.json
  std::optional<std::filesystem::path> report;            // the decision document, Markdown
  std::optional<std::filesystem::path> save_logits;       // safetensors: input ids and the first variant's fp32 logits
  std::optional<std::filesystem::path> reference_logits;  // score all variants against such a file instead of the first
  ProgressStyle progress = ProgressStyle::kLines;         // on `err`
  bool color = false;                                     // of the table on `out`
  std::string cli_command;                                // as typed: written into the result file
  SharedModel* shared = nullptr;                          // null: weights are loaded for this run alone
};

/// Runs `profile`: the table goes to `out`, progress and the path of the result file to `err`. Returns the exit code:
/// 0; 1 where an slo is missed or every request failed; 130 after Ctrl-C, when what was measured by then is written and
/// marked was_cancelled. Throws InputError or DeviceError; where the engine fails after measurements began, they are
/// written likewise before.
int run_experiment(const profile::Profile& profile, const RunOptions& options, std::ostream& out, std::ostream& err);

}  // namespace qwenbench::measure
