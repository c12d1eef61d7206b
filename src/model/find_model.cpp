// Where a model lies: a folder, or the local cache that Hugging Face's tools fill.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/weights.h"

namespace qwenbench::model {
namespace {

namespace fs = std::filesystem;

/// Never throws: a folder that cannot be looked into counts as absent.
bool is_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// The one folder that Hugging Face's tools would use now, so that the command we name fills the place where we look.
fs::path hub_cache() {
  if (const auto cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const auto cache = environment("HUGGINGFACE_HUB_CACHE"); !cache.empty()) return cache;
  if (const auto home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const auto cache = environment("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

/// refs/main names the commit; a snapshot fetched by its commit has no such reference, but is then the only one.
fs::path find_snapshot(const fs::path& repository) {
  std::error_code ignored;
  if (fs::exists(repository / "refs" / "main", ignored)) {
    std::string commit = read_file(repository / "refs" / "main");
    commit.erase(std::find_if(commit.begin(), commit.end(), [](char c) { return c == '\n' || c == '\r' || c == ' '; }),
                 commit.end());
    return is_plain_name(commit) ? repository / "snapshots" / commit : fs::path();
  }
  std::vector<fs::path> snapshots;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", ignored)) snapshots.push_back(entry.path());
  return snapshots.size() == 1 ? snapshots.front() : fs::path();
}

}  // namespace

fs::path find_model(const std::string& name_or_path) {
  if (is_directory(name_or_path)) return name_or_path;
  const std::string shown = one_line(name_or_path, 200);
  std::error_code ignored;
  if (fs::exists(name_or_path, ignored))
    throw InputError(fmt::format("model {}: not a folder; give the checkpoint's folder", shown));
  const auto slash = name_or_path.find('/');
  const std::string organisation = name_or_path.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : name_or_path.substr(slash + 1);
  if (!is_plain_name(organisation) || !is_plain_name(name)) {
    throw InputError(fmt::format("model {}: no such folder, and not a hub id (ORGANISATION/NAME)", shown));
  }
  const fs::path repository = hub_cache() / ("models--" + organisation + "--" + name);
  const fs::path snapshot = find_snapshot(repository);
  if (snapshot.empty() || !fs::exists(snapshot / "config.json", ignored)) {
    throw InputError(
        fmt::format("model {}: no such folder, and not complete in the local cache {}; fetch it with: hf download {}",
                    shown, hub_cache().string(), shown));
  }
  return snapshot;
}

}  // namespace qwenbench::model
