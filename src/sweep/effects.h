// Sensitivity of a sweep: what each axis brings or costs. Private to src/sweep.
#pragma once

#include <vector>

#include "sweep/analysis.h"

namespace qwenbench::sweep {

/// For every axis, every value but the first, and every metric of interest (the objective, the Pareto metrics, the
/// timing metrics that compare tests, kld_mean). Within a pair of cells variants of the same name are compared; their
/// mean counts once, since they share a process. Pairs are independent: standard errors add in squares.
std::vector<Effect> find_effects(const profile::Sweep& sweep, const std::vector<CellResult>& cells,
                                 const report::NoiseFile* noise);

}  // namespace qwenbench::sweep
