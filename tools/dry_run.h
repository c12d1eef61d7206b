// `qwenbench run --dry-run`: what would run, whether it fits, and what to be wary of.
#pragma once

#include <iosfwd>
#include <string>

#include "profile/profile.h"

namespace qwenbench::tools {

/// `assume_devices` is the flag's text; empty: this machine. Loads no weights. Throws DeviceError where a variant's
/// cache cannot hold one sequence of max_model_len (after the plan was printed).
int dry_run(const profile::Profile& profile, const std::string& assume_devices, std::ostream& out);

}  // namespace qwenbench::tools
