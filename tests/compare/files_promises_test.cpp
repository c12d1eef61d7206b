// The promises between files: false alarms with 1 % between processes, and power.
#include <doctest/doctest.h>

#include <iostream>

#include "compare/files/comparison.h"
#include "compare/files_synthetic.h"

using namespace qwenbench;
using namespace qwenbench::compare;
using synthetic::RunOf;

namespace {

struct Figures {
  int alarms = 0, found = 0;
  std::size_t tests = 0;
};

/// `pairs` comparisons of `files` against `files` runs; the new side is `slow` times as slow.
Figures simulate(int pairs, int files, double slow, double cv) {
  Figures figures;
  FileCompareOptions options;
  options.bootstrap_resamples = 400;
  for (int pair = 0; pair < pairs; ++pair) {
    std::vector<RunOf> base, other;
    for (int i = 0; i < files; ++i) {
      RunOf run{.run_deviation = 0.01, .cv = cv, .questions = 4};
      run.seed = static_cast<std::uint64_t>(20000 + 100 * pair + i);
      base.push_back(run);
      run.slow = slow;
      run.seed += 50;
      other.push_back(run);
    }
    const FileComparison comparison = compare_files(synthetic::runs_of_files(base, other), options);
    figures.tests = comparison.tests;
    figures.alarms += comparison.count("regression") + comparison.count("improvement") > 0;
    figures.found += comparison.exit_code(false, false) == ExitCode::kRegression;
  }
  return figures;
}

}  // namespace

TEST_CASE("promise: at most 50 of 1,000 pairs of files of one build raise any alarm") {
  for (const int files : {1, 8}) {
    const Figures figures = simulate(files == 1 ? 1000 : 300, files, 1.0, 0.01);
    std::cout << "false alarms, " << files << " against " << files << " files over " << figures.tests
              << " tests: " << figures.alarms << " of " << (files == 1 ? 1000 : 300) << "\n";
    CHECK(figures.alarms <= (files == 1 ? 50 : 15));
  }
}

TEST_CASE("promise: 5 % slower is found by ten files a side; single files are weaker, and say so") {
  const Figures several = simulate(100, 10, 1.05, 0.025), single = simulate(300, 1, 1.05, 0.025);
  std::cout << "power for a slow-down of 5 %: 10 against 10 files " << several.found << " of 100, 1 against 1 "
            << single.found << " of 300 (1 % between runs assumed)\n";
  CHECK(several.found >= 90);
}
