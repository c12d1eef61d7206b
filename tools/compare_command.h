// `qwenbench compare`: result files against each other.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace qwenbench::tools {

int compare_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace qwenbench::tools
