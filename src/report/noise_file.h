// How much repeated runs of one build differ on a host: what compare needs to judge two single files.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qwenbench::report {

struct NoiseEntry {
  std::string host;  // CPU and GPU models
  std::string model_fingerprint, requests_sha256;
  std::string build_commit;  // of the runs
  std::string measured;      // "2026-11-23T18:00:00Z": start of the last run
  /// Standard deviation between runs of ln(metric), and its degrees of freedom, by metric.
  struct Deviation {
    double deviation = 0;
    int degrees_of_freedom = 0;
  };
  std::map<std::string, Deviation> metrics;
};

struct NoiseFile {
  std::vector<NoiseEntry> hosts;

  /// The entry of the same host, model and requests, else the newest of the same host; null where there is none.
  const NoiseEntry* find(const std::string& host, const std::string& model_fingerprint,
                         const std::string& requests_sha256) const;
  /// Replaces the entry of the same host, model and requests.
  void put(NoiseEntry entry);
};

/// Throws InputError that names the file.
NoiseFile read_noise_file(const std::filesystem::path& path);
void write_noise_file(const std::filesystem::path& path, const NoiseFile& file);

}  // namespace qwenbench::report
