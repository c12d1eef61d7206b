#include "sweep_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <ostream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/progress.h"
#include "command_main.h"
#include "compare/files/render.h"
#include "comparing.h"
#include "dry_run.h"
#include "sweep/html.h"
#include "sweep/predict.h"
#include "sweep/summary.h"
#include "sweep_options.h"

namespace qwenbench::tools {
namespace {

std::string time_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

/// Lists the cells; exit 5 where one will not run.
int dry_run_sweep(const profile::Sweep& sweep, const SweepArguments& arguments, std::ostream& out) {
  const sweep::Shard shard = parse_shard(arguments.shard);
  double all = 0;
  std::size_t cells = 0, problems = 0;
  std::map<profile::Device, sweep::Predictor> predictors;
  out << fmt::format("{:>5}  {:>10}  {:>10}  {:>10}  {:>8}  {}\n", "cell", "weights", "activ.", "KV cache", "time",
                     "settings");
  for (std::size_t i = 0; i < sweep.cells.size(); ++i) {
    if (!shard.holds(i)) continue;
    const profile::Profile& profile = sweep.cells[i].profile;
    auto predict = predictors.find(profile.engine.device);
    if (predict == predictors.end()) {
      predict = predictors.emplace(profile.engine.device, devices_of(profile, arguments.assume_devices)).first;
    }
    const sweep::Prediction prediction = predict->second(profile);
    const auto size = [&](std::int64_t bytes) { return prediction.memory ? size_text(bytes) : std::string("-"); };
    const engine::MemoryPlan plan = prediction.memory.value_or(engine::MemoryPlan{});
    out << fmt::format("{:>5}  {:>10}  {:>10}  {:>10}  {:>8}  {}\n", i + 1, size(plan.weights), size(plan.activations),
                       size(plan.kv), prediction.problem.empty() ? time_text(prediction.seconds) : "-",
                       describe_cell(sweep, sweep.cells[i]));
    if (!prediction.problem.empty()) out << fmt::format("       will not run: {}\n", one_line(prediction.problem));
    problems += !prediction.problem.empty();
    all += prediction.seconds;
    ++cells;
  }
  out << fmt::format("{} cells, about {} (memory per rank; times are rough)\n", cells, time_text(all));
  return problems > 0 ? static_cast<int>(ExitCode::kDevice) : 0;
}

sweep::SweepRunOutcome run_cells(const profile::Sweep& sweep, const SweepArguments& arguments,
                                 const std::filesystem::path& folder, const std::string& command, std::ostream& err) {
  sweep::SweepRunOptions options;
  options.folder = folder;
  options.shard = parse_shard(arguments.shard);
  options.resume = arguments.resume;
  options.progress = progress_style_for_stderr(arguments.quiet);
  options.cli_command = command;
  // Only how the cells compare matters here. No GPU is asked: a child process could not use it after its parent did.
  engine::DeviceMemory device;
  device.is_gpu = sweep.cells.front().profile.engine.device == profile::Device::kCuda;
  device.count = 64;
  device.bytes = std::int64_t{1} << 40;
  device.sm_version = device.is_gpu ? 80 : 0;
  sweep::Predictor predict(device);
  options.predict_seconds = [&](const profile::Profile& profile) { return predict(profile).seconds; };
  return sweep::run_sweep(sweep, options, err);
}

/// Every cell against its twin; its report follows the sweep's.
int compare_with_baseline(const std::vector<sweep::CellResult>& cells, const SweepArguments& arguments,
                          std::ostream& out) {
  std::vector<compare::Run> runs = sweep::read_all_cells(arguments.baseline, "base");
  for (const sweep::CellResult& cell : cells) {
    for (compare::Run run : cell.runs) {
      run.keys["side"] = "new";
      runs.push_back(std::move(run));
    }
  }
  compare::FileCompareOptions options;
  options.row_keys = {"cell", "variant"};
  options.minimum_effect = parse_thresholds(arguments.thresholds);
  if (!arguments.accept.empty()) options.accepted = report::read_accept_file(arguments.accept);
  options.noise = find_noise(arguments.noise_floor);
  options.today = today();
  const compare::FileComparison comparison = compare::compare_files(runs, options);
  compare::RenderOptions rendering;
  rendering.color = use_color(STDOUT_FILENO);
  rendering.strict = arguments.strict;
  rendering.force = arguments.force;
  out << "\nAgainst " << arguments.baseline << "\n\n" << compare::render_text(comparison, rendering);
  return static_cast<int>(comparison.exit_code(arguments.strict, arguments.force));
}

int summarize(const profile::Sweep& sweep, const SweepArguments& arguments, const std::filesystem::path& folder,
              std::ostream& out, std::ostream& err) {
  const std::vector<sweep::CellResult> cells = sweep::read_cells(folder, sweep, !arguments.html.empty());
  const auto noise = find_noise(arguments.noise_floor);
  const sweep::Analysis analysis = sweep::analyse(sweep, cells, noise ? &*noise : nullptr);
  write_file_atomically(folder / "summary.csv", summary_csv(sweep, cells, analysis));
  write_file_atomically(folder / "summary.json", summary_json(sweep, cells, analysis));
  out << summary_text(sweep, cells, analysis);
  if (!arguments.html.empty()) {
    write_file_atomically(arguments.html, sweep::render_html(sweep, cells, analysis));
    err << fmt::format("page written to {}\n", arguments.html);
  }
  err << fmt::format("summary written to {}\n", (folder / "summary.csv").string());
  int code = analysis.champion ? 0 : static_cast<int>(ExitCode::kRegression);
  if (!arguments.baseline.empty()) {
    const int compared = compare_with_baseline(cells, arguments, out);
    if (compared != 0) code = compared;
  }
  for (const sweep::CellResult& cell : cells) {
    if (!cell.done()) code = cell.failure ? cell.failure->exit_code : static_cast<int>(ExitCode::kInput);
  }
  return code;
}

}  // namespace

int sweep_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  CLI::App app{"Runs a grid of experiments, and says which setting is best and what each brings.", "qwenbench sweep"};
  SweepArguments arguments;
  add_sweep_options(app, arguments);
  if (!parse_arguments(app, args, out)) return 0;
  arguments.merges = app.count("--merge") > 0;
  std::erase(arguments.merge, "");
  if (arguments.file.empty()) throw InputError("which sweep? (see qwenbench sweep --help)");
  const profile::Sweep sweep = profile::load_sweep(arguments.file, arguments.sets);
  sweep::check_names(sweep);
  const sweep::Shard shard = parse_shard(arguments.shard);
  if (arguments.dry_run) return dry_run_sweep(sweep, arguments, out);
  const std::filesystem::path folder = folder_of(arguments, sweep.name);
  require_writable(folder / "summary.csv");
  if (!arguments.html.empty()) require_writable(arguments.html);
  if (!arguments.baseline.empty()) sweep::read_all_cells(arguments.baseline, "base");  // found out before hours of work
  if (arguments.merges) {
    sweep::claim_folder(folder, sweep);
    for (const std::string& from : arguments.merge) sweep::merge_folder(from, folder, sweep);
    return summarize(sweep, arguments, folder, out, err);
  }
  const auto outcome = run_cells(sweep, arguments, folder, shell_text("qwenbench sweep", args), err);
  if (outcome.cancelled) {
    err << fmt::format("cancelled; go on with: qwenbench sweep {} -o {} --resume\n", arguments.file, folder.string());
    return static_cast<int>(ExitCode::kCancelled);
  }
  if (shard.count == 1) return summarize(sweep, arguments, folder, out, err);
  out << fmt::format("share {}/{}: {} cells done, {} had a result, {} failed\n", shard.index, shard.count,
                     outcome.finished, outcome.kept, outcome.failed);
  return outcome.failed > 0 ? static_cast<int>(ExitCode::kDevice) : 0;
}

}  // namespace qwenbench::tools
