#include "compare_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "comparing.h"
#include "report/metrics.h"

namespace qwenbench::tools {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void check_format(const std::string& format) {
  const std::vector<std::string> known{"text", "markdown", "csv", "json"};
  if (std::find(known.begin(), known.end(), format) != known.end()) return;
  throw InputError(fmt::format("--format {}: there are {}", one_line(format, 40), fmt::join(known, ", ")));
}

bool names_variants(const std::vector<compare::Input>& inputs) {
  return std::any_of(inputs.begin(), inputs.end(), [](const compare::Input& input) { return !input.variant.empty(); });
}

/// Whether the columns are the two sides, or another key.
bool by_side(const CompareArguments& arguments) { return arguments.col.empty() && inputs_of(arguments).size() > 1; }

}  // namespace

void add_compare_options(CLI::App& app, CompareArguments& arguments) {
  app.add_option("FILES", arguments.files, "BASE NEW, one file (its variants), or any number with --col")
      ->type_name("FILE[:VARIANT]...");
  app.add_option("--base", arguments.base, "Result files of the base side")->type_name("FILE[:VARIANT]...");
  app.add_option("--new", arguments.candidate, "Result files of the other side")->type_name("FILE[:VARIANT]...");
  app.add_option("--filter", arguments.filter, "Runs and metrics that take part, as in variant:baseline metric:/ttft/")
      ->type_name("EXPR");
  app.add_option("--row", arguments.row, "Keys that make a row [variant]")->type_name("KEY,...");
  app.add_option("--col", arguments.col, "Key that makes a column [base and new]")->type_name("KEY");
  app.add_option("--against", arguments.against, "Column that the others are compared with [the first]")
      ->type_name("VALUE");
  app.add_option("--metric", arguments.metrics, "Timing metrics to test; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--threshold", arguments.thresholds, "Smallest change that matters; may be repeated")
      ->type_name("METRIC=5%")
      ->allow_extra_args(false);
  app.add_option("--accept", arguments.accept, "Acknowledged regressions, each with a reason and an end")
      ->type_name("FILE");
  app.add_flag("--noise", arguments.noise, "FILES are repeated runs of one build: measure and save the host's noise");
  app.add_option("--noise-floor", arguments.noise_floor, "Noise of this host [results/noise.json, where it exists]")
      ->type_name("FILE");
  app.add_option("--format", arguments.format, "Form of the report [text]")->type_name("text|markdown|csv|json");
  app.add_option("-o,--output", arguments.output, "Write the report there instead of to stdout")->type_name("FILE");
  app.add_option("--html", arguments.html, "Write a page with charts, too")->type_name("FILE");
  app.add_flag("--strict", arguments.strict, "Exit 3 where a metric is inconclusive");
  app.add_flag("--force", arguments.force, "Compare what is not comparable, and partial results");
}

std::vector<compare::Input> inputs_of(const CompareArguments& arguments) {
  std::vector<compare::Input> inputs;
  const bool sides = !arguments.base.empty() || !arguments.candidate.empty();
  if (sides && (arguments.base.empty() || arguments.candidate.empty() || !arguments.files.empty())) {
    throw InputError("give BASE NEW, or both --base and --new (see qwenbench compare --help)");
  }
  for (const std::string& file : arguments.base) inputs.push_back(compare::parse_input(file, "base"));
  for (const std::string& file : arguments.candidate) inputs.push_back(compare::parse_input(file, "new"));
  const bool pair = arguments.files.size() == 2 && arguments.col.empty();
  for (std::size_t i = 0; i < arguments.files.size(); ++i) {
    inputs.push_back(compare::parse_input(arguments.files[i], !pair ? "" : i == 0 ? "base" : "new"));
  }
  if (inputs.empty()) throw InputError("nothing to compare: give BASE NEW (see qwenbench compare --help)");
  if (arguments.files.size() > 2 && arguments.col.empty() && !arguments.noise) {
    throw InputError(
        "more than two files: name their sides with --base and --new, or what makes the columns with --col");
  }
  return inputs;
}

compare::FileCompareOptions options_of(const CompareArguments& arguments, const std::string& today) {
  check_format(arguments.format);
  compare::FileCompareOptions options;
  options.column_key = !arguments.col.empty() ? arguments.col : by_side(arguments) ? "side" : "variant";
  options.base_column = arguments.against;
  options.row_keys = {"variant"};
  // Two variants by name, or the variants of one file: they stand beside each other, not in rows.
  if (options.column_key == "variant" || names_variants(inputs_of(arguments))) options.row_keys.clear();
  if (!arguments.row.empty()) options.row_keys = split(arguments.row);
  options.filter = arguments.filter;
  for (const std::string& metric : arguments.metrics) {
    report::metric_info(metric);
    options.timing_metrics.push_back(metric);
  }
  options.minimum_effect = parse_thresholds(arguments.thresholds);
  if (!arguments.accept.empty()) options.accepted = report::read_accept_file(arguments.accept);
  options.today = today;
  return options;
}

}  // namespace qwenbench::tools
