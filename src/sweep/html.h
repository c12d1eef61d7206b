// The page of a sweep.
#pragma once

#include <string>

#include "sweep/analysis.h"

namespace qwenbench::sweep {

/// `cells` read with keep_curves. Throws InputError where this build has no chart library.
std::string render_html(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis);

}  // namespace qwenbench::sweep
