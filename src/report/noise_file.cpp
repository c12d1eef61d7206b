#include "report/noise_file.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::report {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kNoiseVersion = 1;

[[noreturn]] void refuse(const std::string& source) {
  throw InputError(fmt::format("{}: no noise file of qwenbench; make one with qwenbench compare --noise", source));
}

NoiseEntry read_noise_entry(const Json& json, const std::string& source) {
  NoiseEntry entry;
  try {
    entry.host = json.at("host").get<std::string>();
    entry.model_fingerprint = json.at("model_fingerprint").get<std::string>();
    entry.requests_sha256 = json.at("requests_sha256").get<std::string>();
    entry.build_commit = json.at("build_commit").get<std::string>();
    entry.measured = json.at("measured").get<std::string>();
    for (const auto& [name, value] : json.at("metrics").items()) {
      const NoiseEntry::Deviation deviation{value.at("deviation").get<double>(),
                                            value.at("degrees_of_freedom").get<int>()};
      if (!(deviation.deviation >= 0) || !std::isfinite(deviation.deviation) || deviation.degrees_of_freedom < 1) {
        refuse(source);
      }
      entry.metrics[name] = deviation;
    }
  } catch (const Json::exception&) {
    refuse(source);
  }
  return entry;
}

}  // namespace

const NoiseEntry* NoiseFile::find(const std::string& host, const std::string& model_fingerprint,
                                  const std::string& requests_sha256) const {
  const NoiseEntry* best = nullptr;
  for (const NoiseEntry& entry : hosts) {
    if (entry.host != host) continue;
    if (entry.model_fingerprint == model_fingerprint && entry.requests_sha256 == requests_sha256) return &entry;
    if (best == nullptr || entry.measured > best->measured) best = &entry;
  }
  return best;
}

void NoiseFile::put(NoiseEntry entry) {
  std::erase_if(hosts, [&](const NoiseEntry& old) {
    return old.host == entry.host && old.model_fingerprint == entry.model_fingerprint &&
           old.requests_sha256 == entry.requests_sha256;
  });
  hosts.push_back(std::move(entry));
}

NoiseFile read_noise_file(const std::filesystem::path& path) {
  const std::string source = path.string();
  const Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("noise_version") || !json.contains("hosts")) refuse(source);
  if (json["noise_version"] != kNoiseVersion) {
    throw InputError(fmt::format("{}: written by another qwenbench (noise_version {}, this one reads {})", source,
                                 json["noise_version"].dump(), kNoiseVersion));
  }
  if (!json["hosts"].is_array()) refuse(source);
  NoiseFile file;
  for (const Json& entry : json["hosts"]) file.hosts.push_back(read_noise_entry(entry, source));
  return file;
}

void write_noise_file(const std::filesystem::path& path, const NoiseFile& file) {
  Json json{{"noise_version", kNoiseVersion}, {"hosts", Json::array()}};
  for (const NoiseEntry& entry : file.hosts) {
    Json metrics = Json::object();
    for (const auto& [name, value] : entry.metrics) {
      metrics[name] = {{"deviation", value.deviation}, {"degrees_of_freedom", value.degrees_of_freedom}};
    }
    json["hosts"].push_back({{"host", entry.host},
                             {"model_fingerprint", entry.model_fingerprint},
                             {"requests_sha256", entry.requests_sha256},
                             {"build_commit", entry.build_commit},
                             {"measured", entry.measured},
                             {"metrics", metrics}});
  }
  write_file_atomically(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace qwenbench::report
