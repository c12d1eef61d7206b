// `qwenbench SUBCOMMAND ...` runs the executable qwenbench-SUBCOMMAND that lies beside it, as git does.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace qwenbench::tools {

/// Subcommands whose executables lie in `folder`, sorted.
std::vector<std::string> find_subcommands(const std::filesystem::path& folder);

/// Answers --help and --version, refuses an unknown subcommand (naming the nearest), or replaces this process by the
/// subcommand's. Returns only where nothing was started.
int dispatch(const std::filesystem::path& folder, const std::vector<std::string>& args, std::ostream& out);

}  // namespace qwenbench::tools
