// The tests of one cell against another: which unit (trial or file), which noise.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "compare/files/comparison.h"
#include "compare/tested.h"

namespace qwenbench::compare {

/// The runs of one row and column.
using Cell = std::vector<const Run*>;

/// Run-to-run deviation of ln(metric) on the host, and how well it is known.
struct RunNoise {
  double deviation = 0.01;  // assumed where nobody measured it
  double degrees_of_freedom = 1e9;
  bool measured = false;
};

/// `noise` may be null. Of the host, model and requests of `run`.
RunNoise noise_of(const report::NoiseFile* noise, const Run& run, const std::string& metric);

/// Timing: two variants of one file by paired trials; two single files likewise, the run-to-run deviation added to the
/// standard error, and no minimum effect below twice that deviation; more files a side by Mann-Whitney U over the
/// files, the change by Hodges and Lehmann. Quality: paired by request, the mean over a side's files.
std::vector<Tested> test_cells(const Cell& base, const Cell& other, const TestOptions& options,
                               const report::NoiseFile* noise);

/// One timing metric of the above; null where both sides were not measured.
std::optional<Tested> test_timing_of_cells(const Cell& base, const Cell& other, const std::string& metric,
                                           const TestOptions& options, const report::NoiseFile* noise);

/// One metric of one cell; null where it was not measured.
std::optional<Center> center_of(const Cell& cell, const std::string& metric);

}  // namespace qwenbench::compare
