// `qwenbench run --dry-run`: what would run, whether it fits, and what to be wary of.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "engine/memory_plan.h"
#include "profile/profile.h"

namespace qwenbench::tools {

/// What `assume_devices` says, or this machine where it is empty. Throws InputError, or DeviceError where the profile
/// wants a GPU and none answers.
engine::DeviceMemory devices_of(const profile::Profile& profile, const std::string& assume_devices);

/// Three digits that count: "17.4 GiB", "312 MiB".
std::string size_text(std::int64_t bytes);

/// `assume_devices` is the flag's text; empty: this machine. Loads no weights. Throws DeviceError where a variant's
/// cache cannot hold one sequence of max_model_len (after the plan was printed).
int dry_run(const profile::Profile& profile, const std::string& assume_devices, std::ostream& out);

}  // namespace qwenbench::tools
