#include "run_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <ostream>

#include "base/error.h"
#include "base/progress.h"
#include "command_main.h"
#include "dry_run.h"
#include "measure/experiment.h"
#include "run_options.h"

namespace qwenbench::tools {
namespace {

std::optional<std::filesystem::path> optional_path(const std::string& path) {
  return path.empty() ? std::nullopt : std::optional<std::filesystem::path>(path);
}

}  // namespace

int run_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  CLI::App app{"Measures latency, throughput and quality of KV-cache variants of one model, and judges them.",
               "qwenbench run"};
  RunArguments arguments;
  add_run_options(app, arguments);
  if (!parse_arguments(app, args, out)) return 0;
  const profile::Profile profile = load_profile(arguments);
  if (arguments.dry_run) return dry_run(profile, arguments.assume_devices, out);
  measure::RunOptions options;
  options.output = optional_path(arguments.output);
  options.report = optional_path(arguments.report);
  options.save_logits = optional_path(arguments.save_logits);
  options.reference_logits = optional_path(arguments.reference_logits);
  options.progress = progress_style_for_stderr(arguments.quiet);
  options.color = use_color(STDOUT_FILENO);
  options.cli_command = shell_text("qwenbench run", args);
  return measure::run_experiment(profile, options, out, err);
}

}  // namespace qwenbench::tools
