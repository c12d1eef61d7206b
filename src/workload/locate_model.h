// Which folder a profile's model is.
#pragma once

#include <filesystem>
#include <string>

#include "profile/profile.h"

namespace qwenbench::workload {

struct ModelLocation {
  std::filesystem::path directory;
  bool config_only = false;  // the model is not here: `directory` is the profile's model_config
};

/// The model's folder (profile::resolve_path), or the hub's local cache; where it is in neither and `config_is_enough`
/// (a dry run, load_format dummy), the profile's model_config. Throws InputError that says the command which would
/// fetch it.
ModelLocation locate_model(const profile::Profile& profile, bool config_is_enough);

}  // namespace qwenbench::workload
