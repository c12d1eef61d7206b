// The page of a comparison.
#pragma once

#include <string>
#include <vector>

#include "compare/files/render.h"

namespace qwenbench::compare {

/// `runs`: those of the comparison, loaded with keep_curves. Throws InputError where this build has no chart library.
std::string render_html(const FileComparison& comparison, const std::vector<Run>& runs, const RenderOptions& options);

}  // namespace qwenbench::compare
