#include "calibrate_kv_command.h"

#include <fmt/format.h>

#include <array>
#include <ostream>

#include "base/error.h"
#include "base/progress.h"
#include "command_main.h"
#include "measure/calibrate_kv.h"
#include "run_options.h"

namespace qwenbench::tools {
namespace {

struct Arguments {
  RunArguments profile;
  std::string exports, check;
  bool verify = false, cross = false, vllm_dummy = false, vllm_rank_local = false;
};

constexpr std::array kCalibrationShortcuts{
    Shortcut{"--model", "model", "PATH|ID", "Checkpoint directory, or a hub id in the local cache"},
    Shortcut{"--device", "engine.device", "auto|cpu|cuda", "Where the model runs"},
    Shortcut{"--tensor-parallel-size", "engine.tensor_parallel_size", "N", "Ranks that share every layer"},
    Shortcut{"--dataset", "calibration.dataset", "NAME|FILE", "Calibration set: a name in datasets/, or a JSONL file"},
    Shortcut{"--num-samples", "calibration.num_samples", "N", "Requests of it, at most"},
    Shortcut{"--method", "calibration.method", "METHOD", "absmax, percentile, mse, attention_mse, bound or vllm"},
    Shortcut{"--percentile", "calibration.percentile", "PERCENT", "Of method percentile"},
    Shortcut{"--granularity", "calibration.granularity", "tensor|head", "One scale a layer, or one a KV head"},
    Shortcut{"--round", "calibration.round", "none|pow2", "pow2: up to the next power of two"},
};

void add_options(CLI::App& app, Arguments& arguments) {
  add_profile_options(app, arguments.profile, kCalibrationShortcuts);
  app.add_option("-o,--output", arguments.profile.output, "Scale file [results/PROFILE-kv-scales.json]")
      ->type_name("FILE");
  app.add_option("--export", arguments.exports, "Also write compressed-tensors (for vLLM), modelopt, sglang")
      ->type_name("FORMAT[,FORMAT]");
  app.add_flag("--verify", arguments.verify, "Prove that scales arrive on both sides of the cache");
  app.add_flag("--cross", arguments.cross, "Scales from text on image prompts, and the reverse");
  app.add_flag("--vllm-dummy", arguments.vllm_dummy, "With --method vllm: dummy tokens, as in its warm-up");
  app.add_flag("--vllm-rank-local", arguments.vllm_rank_local, "With --method vllm: every rank its own maxima");
  app.add_option("--check", arguments.check, "Only read a scale file of any form, and say whether it can be used")
      ->type_name("FILE");
  app.add_flag("-q,--quiet", arguments.profile.quiet, "No progress on stderr");
}

}  // namespace

int calibrate_kv_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  CLI::App app{"Measures KV scales on a calibration set, and says which layers need one.", "qwenbench calibrate-kv"};
  Arguments arguments;
  add_options(app, arguments);
  if (!parse_arguments(app, args, out)) return 0;
  const profile::Profile profile = load_profile(arguments.profile, "qwenbench calibrate-kv");
  if (!arguments.check.empty()) return measure::check_scale_file(profile, arguments.check, out, err);
  measure::CalibrateKvOptions options;
  if (!arguments.profile.output.empty()) options.output = arguments.profile.output;
  if (!arguments.exports.empty()) options.exports = calibration::parse_export_formats(arguments.exports);
  options.verify = arguments.verify;
  options.cross = arguments.cross;
  options.vllm_dummy = arguments.vllm_dummy;
  options.vllm_rank_local = arguments.vllm_rank_local;
  options.progress = progress_style_for_stderr(arguments.profile.quiet);
  return measure::calibrate_kv(profile, options, out, err);
}

}  // namespace qwenbench::tools
