#include "sweep_options.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"

namespace qwenbench::tools {

void add_sweep_options(CLI::App& app, SweepArguments& arguments) {
  app.add_option("SWEEP", arguments.file, "Sweep: profiles/NAME.json, or a file")->type_name("NAME|FILE");
  app.add_option("--set", arguments.sets, "Override a field of every cell; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option("-o,--output", arguments.output, "Folder of the results [results/NAME-sweep]")->type_name("DIR");
  app.add_flag("--resume", arguments.resume, "Go on: cells that have a result are left alone");
  app.add_flag("--dry-run", arguments.dry_run, "List the cells with their predicted memory and time");
  app.add_option("--assume-devices", arguments.assume_devices,
                 "With --dry-run: plan for hardware that is not here, as in 2x24GiB,sm_89")
      ->type_name("NxMEM,sm_CC");
  app.add_option("--shard", arguments.shard, "Run share I of N only; the summary comes with --merge")->type_name("I/N");
  app.add_option("--merge", arguments.merge,
                 "Join the shares in these folders (none: in -o's) and summarize; runs nothing")
      ->type_name("[DIR...]")
      ->expected(0, 10000);
  app.add_option("--baseline", arguments.baseline, "Compare every cell with its twin in this folder")->type_name("DIR");
  app.add_option("--threshold", arguments.thresholds, "With --baseline: smallest change that matters; may be repeated")
      ->type_name("METRIC=5%")
      ->allow_extra_args(false);
  app.add_option("--accept", arguments.accept, "With --baseline: acknowledged regressions")->type_name("FILE");
  app.add_option("--noise-floor", arguments.noise_floor, "Noise of this host [results/noise.json, where it exists]")
      ->type_name("FILE");
  app.add_flag("--strict", arguments.strict, "With --baseline: exit 3 where a metric is inconclusive");
  app.add_flag("--force", arguments.force, "With --baseline: compare what is not comparable");
  app.add_option("--html", arguments.html, "Write a page with charts, too")->type_name("FILE");
  app.add_flag("-q,--quiet", arguments.quiet, "No progress on stderr");
}

sweep::Shard parse_shard(const std::string& text) {
  sweep::Shard shard;
  if (text.empty()) return shard;
  unsigned index = 0, count = 0;
  int end = 0;
  const bool read = std::sscanf(text.c_str(), "%6u/%6u%n", &index, &count, &end) == 2;
  if (!read || static_cast<std::size_t>(end) != text.size() || index < 1 || index > count) {
    throw InputError(fmt::format("--shard {}: expected I/N with I from 1 to N, as in 2/8", one_line(text, 40)));
  }
  return {index, count};
}

std::filesystem::path folder_of(const SweepArguments& arguments, const std::string& name) {
  if (!arguments.output.empty()) return arguments.output;
  return std::filesystem::path("results") / (name + "-sweep");
}

}  // namespace qwenbench::tools
