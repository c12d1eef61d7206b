// Judgement of one experiment: its variants against each other, and the verdict. Pure: reads and fills plain structs.
// The rules are those of docs: per metric a minimum effect d; regression or improvement = Holm-corrected p < 0.05 and
// |change| > d; same = the 90 % interval lies inside +-d (TOST); otherwise inconclusive. Timing: Student t on log
// ratios of paired trials. Quality: bootstrap over requests; accuracy: exact McNemar.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "report/result.h"

namespace qwenbench::compare {

struct ExperimentOptions {
  std::string reference, baseline, candidate;    // variant names; empty: the first variant; "baseline" and
                                                 // "calibrated", or the next variants in their order
  std::map<std::string, double> ceiling;         // upper limits of quality metrics, e.g. {"kld_mean", 0.02} (nats)
  std::map<std::string, double> minimum_effect;  // overrides: "timing" (relative), "kld_mean", "ln_ppl_ratio",
                                                 // "same_top1" and "accuracy" (0..1), or a metric's own name
  std::vector<report::SloLimit> slo;
  int bootstrap_resamples = 10000;
  std::uint64_t bootstrap_seed = 20250101;
  double alpha = 0.05;
};

/// Fills result.slo, result.comparisons (baseline -> candidate, then reference -> each) and result.verdict. The
/// variants' summaries and quality must be filled (report/summary.h). With dummy weights, or where no FP8 variant was
/// scored, the verdict is null. Throws InputError for option names that no variant or metric
/// has.
void judge(report::Result& result, const ExperimentOptions& options);

/// The exit code of a finished `run`: 130 where it was cancelled; 1 where an slo is missed or every request of a
/// variant failed; else 0: that one variant is worse than another is what the experiment wanted to know, not a
/// regression of the software.
ExitCode exit_code(const report::Result& result);

}  // namespace qwenbench::compare
