// `qwenbench sweep`: a grid of experiments.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace qwenbench::tools {

int sweep_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace qwenbench::tools
