#include "compare_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <ostream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/progress.h"
#include "command_main.h"
#include "compare/files/html.h"
#include "compare/files/noise.h"
#include "compare/files/render.h"
#include "compare/pair.h"
#include "compare_options.h"
#include "comparing.h"

namespace qwenbench::tools {
namespace {

int save_noise(const std::vector<compare::Run>& runs, const CompareArguments& arguments, std::ostream& out,
               std::ostream& err) {
  const auto metrics = arguments.metrics.empty() ? compare::TestOptions{}.timing_metrics : arguments.metrics;
  const report::NoiseEntry entry = compare::measure_noise(runs, metrics);
  const std::filesystem::path path = arguments.output.empty() ? kNoiseFile : arguments.output;
  report::NoiseFile file;
  if (std::filesystem::exists(path)) file = report::read_noise_file(path);
  file.put(entry);
  report::write_noise_file(path, file);
  out << fmt::format("run-to-run deviation on {}\n", entry.host);
  for (const auto& [metric, value] : entry.metrics) {
    out << fmt::format("{:<24}{:>8.2f} %  ({} degree{} of freedom)\n", metric, 100 * value.deviation,
                       value.degrees_of_freedom, value.degrees_of_freedom == 1 ? "" : "s");
  }
  err << fmt::format("noise floor written to {}\n", path.string());
  return 0;
}

std::string render(const compare::FileComparison& comparison, const CompareArguments& arguments) {
  compare::RenderOptions options;
  options.color = arguments.output.empty() && use_color(STDOUT_FILENO);
  options.strict = arguments.strict;
  options.force = arguments.force;
  if (arguments.format == "markdown") return compare::render_markdown(comparison, options);
  if (arguments.format == "csv") return compare::render_csv(comparison);
  if (arguments.format == "json") return compare::render_json(comparison, options);
  return compare::render_text(comparison, options);
}

}  // namespace

int compare_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  CLI::App app{"Compares result files metric by metric; the exit code says whether something regressed.",
               "qwenbench compare"};
  CompareArguments arguments;
  add_compare_options(app, arguments);
  if (!parse_arguments(app, args, out)) return 0;
  const std::vector<compare::Input> inputs = inputs_of(arguments);
  compare::FileCompareOptions options = options_of(arguments, today());
  if (!arguments.output.empty()) require_writable(arguments.output);
  if (!arguments.html.empty()) require_writable(arguments.html);
  const std::vector<compare::Run> runs = compare::load_runs(inputs, {arguments.force, !arguments.html.empty()});
  if (arguments.noise) return save_noise(runs, arguments, out, err);
  options.noise = find_noise(arguments.noise_floor);
  const compare::FileComparison comparison = compare::compare_files(runs, options);
  const std::string text = render(comparison, arguments);
  if (!arguments.html.empty()) {
    write_file_atomically(arguments.html,
                          compare::render_html(comparison, runs, {false, arguments.strict, arguments.force}));
    err << fmt::format("page written to {}\n", arguments.html);
  }
  if (arguments.output.empty()) {
    out << text << std::flush;
  } else {
    write_file_atomically(arguments.output, text);
  }
  if (!comparison.comparable() && !arguments.force) {
    err << "qwenbench: not comparable: the sides differ in what was measured; see the report, or use --force\n";
  }
  return static_cast<int>(comparison.exit_code(arguments.strict, arguments.force));
}

}  // namespace qwenbench::tools
