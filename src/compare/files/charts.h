// Charts of single runs, for the pages of compare and sweep: pure functions from results to html/page.h.
#pragma once

#include <string>
#include <vector>

#include "compare/files/run.h"
#include "html/page.h"

namespace qwenbench::compare {

/// A run under the name it has on the page.
struct NamedRun {
  std::string name;
  const Run* run = nullptr;
};

/// More than this many lines in one chart cannot be told apart: the first so many are drawn, the table has them all.
inline constexpr std::size_t kMostSeries = 8;

/// Cumulative distributions of TTFT and of the gaps between tokens. Empty where no curves were kept.
std::vector<html::Chart> latency_charts(const std::vector<NamedRun>& runs);

/// Output throughput against median TTFT, one point a trial.
html::Chart throughput_chart(const std::vector<NamedRun>& runs);

/// KL divergence from the reference by position in the sequence; empty where nothing was scored.
std::vector<html::Chart> position_charts(const std::vector<NamedRun>& runs);

/// Heat maps over the layers: scales, and what saturates at them. Empty without an FP8 cache.
std::vector<html::Chart> scale_charts(const std::vector<NamedRun>& runs);

/// Where the runs were measured, a column a run.
html::Table environment_table(const std::vector<NamedRun>& runs);

}  // namespace qwenbench::compare
