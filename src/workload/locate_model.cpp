#include "workload/locate_model.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/weights.h"

namespace qwenbench::workload {

ModelLocation locate_model(const profile::Profile& profile, bool config_is_enough) {
  try {
    return {model::find_model(profile::resolve_path(profile.model).string()), false};
  } catch (const InputError& error) {
    if (profile.model_config.empty()) throw;
    const auto directory = profile::resolve_path(profile.model_config);
    std::error_code ignored;
    if (!config_is_enough) {
      throw InputError(fmt::format("{} (without it: --dry-run, or --load-format dummy for speed only)", error.what()));
    }
    if (!std::filesystem::exists(directory / "config.json", ignored)) {
      throw InputError(fmt::format("{}; nor is there {}", error.what(), (directory / "config.json").string()));
    }
    return {directory, true};
  }
}

}  // namespace qwenbench::workload
