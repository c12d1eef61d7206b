#include "compare/files/noise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "compare/files/guards.h"
#include "report/metrics.h"
#include "stats/descriptive.h"

namespace qwenbench::compare {
namespace {

void require_one_build(const Run& first, const Run& other) {
  for (const Difference& difference : find_differences(first, other, {})) {
    const bool harmless = difference.name.starts_with("environment.git_is_dirty") ||
                          difference.name.ends_with("sm_clock_mhz") || difference.name == "environment.memory_size";
    if (harmless) continue;
    throw InputError(fmt::format("{} and {} are no repeated runs of one build: {} is {} and {}", first.file(),
                                 other.file(), difference.name, one_line(difference.base, 60),
                                 one_line(difference.other, 60)));
  }
}

}  // namespace

report::NoiseEntry measure_noise(const std::vector<Run>& runs, const std::vector<std::string>& metrics) {
  std::map<std::string, std::vector<const Run*>> by_variant;
  for (const Run& run : runs) by_variant[run.variant->name].push_back(&run);
  const report::Result& result = *runs.front().result;
  report::NoiseEntry entry{host_of(result.environment),
                           result.engine.model_fingerprint,
                           result.workload.requests_sha256,
                           result.environment.build_commit,
                           "",
                           {}};
  for (const auto& [variant, of_variant] : by_variant) {
    if (of_variant.size() < 2) throw InputError("--noise needs two files or more of the same experiment");
    for (const Run* run : of_variant) {
      if (run != of_variant.front() && same_run(*run, *of_variant.front())) {
        throw InputError(fmt::format("{} is given twice: that is no second run", run->file()));
      }
      require_one_build(*of_variant.front(), *run);
      entry.measured = std::max(entry.measured, run->result->start_time);
    }
  }
  for (const std::string& metric : metrics) {
    double squares = 0, variants = 0;
    int freedom = 0;  // variants of one file share their process: they add no degrees of freedom
    for (const auto& [variant, of_variant] : by_variant) {
      std::vector<double> logs;
      for (const Run* run : of_variant) {
        const auto value = report::metric_value(*run->variant, metric);
        if (value && *value > 0) logs.push_back(std::log(*value));
      }
      if (logs.size() < 2) continue;
      const double deviation = stats::sample_std(logs);
      squares += deviation * deviation;
      variants += 1;
      freedom = std::max(freedom, static_cast<int>(logs.size() - 1));
    }
    if (freedom > 0) entry.metrics[metric] = {std::sqrt(squares / variants), freedom};
  }
  return entry;
}

}  // namespace qwenbench::compare
