// `qwenbench calibrate-kv`: KV scales, and the evidence whether they matter.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace qwenbench::tools {

int calibrate_kv_command(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace qwenbench::tools
