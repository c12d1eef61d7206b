// Windows Subsystem for Linux, under which page-locked memory is scarce.
#pragma once

#include <string_view>

namespace qwenbench {

/// From the text of /proc/version.
bool is_wsl(std::string_view proc_version);

bool running_under_wsl();

}  // namespace qwenbench
