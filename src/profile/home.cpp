#include <cstdlib>
#include <filesystem>

#include "profile/profile.h"

namespace qwenbench::profile {
namespace {

namespace fs = std::filesystem;

bool has_profiles(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder / "profiles", error);
}

}  // namespace

fs::path home() {
  if (const char* set = std::getenv("QWENBENCH_HOME"); set != nullptr && *set != '\0') return set;
  if (has_profiles(QWENBENCH_SOURCE_DIR)) return QWENBENCH_SOURCE_DIR;
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  for (fs::path folder = executable.parent_path(); !error && folder.has_relative_path();
       folder = folder.parent_path()) {
    if (has_profiles(folder)) return folder;
    if (has_profiles(folder / "share" / "qwenbench")) return folder / "share" / "qwenbench";
  }
  return fs::current_path();
}

fs::path resolve_path(const std::string& path) {
  if (fs::path(path).is_absolute() || path.starts_with("./") || path.starts_with("../")) return path;
  std::error_code error;
  const fs::path below = home() / path;
  return fs::exists(below, error) ? below : fs::path(path);
}

}  // namespace qwenbench::profile
