// Statistics on disk, so that a calibration that was interrupted goes on where it stood.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "calibration/convergence.h"
#include "calibration/kv_statistics.h"

namespace qwenbench::calibration {

/// Writes atomically. `key` says of what model, set and settings they are.
void save_statistics(const std::filesystem::path& path, const KvStatistics& statistics, const std::vector<Look>& looks,
                     const std::string& key);

/// Fills empty `statistics` and `looks` from the file. False, with nothing changed, where there is no such file or its
/// key is another; throws InputError where it is damaged.
bool load_statistics(const std::filesystem::path& path, KvStatistics& statistics, std::vector<Look>& looks,
                     const std::string& key);

}  // namespace qwenbench::calibration
