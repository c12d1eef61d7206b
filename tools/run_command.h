// `qwenbench run`: one experiment.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace qwenbench::tools {

int run_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace qwenbench::tools
