#include "report/sweep_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::report {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kSweepVersion = 1;

std::string dump(const Json& json) { return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

SweepManifest read_sweep_manifest(const std::filesystem::path& path) {
  const Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  const std::string source = path.string();
  if (!json.is_object() || !json.contains("sweep_version")) throw InputError(source + ": no sweep of qwenbench");
  if (json["sweep_version"] != kSweepVersion) {
    throw InputError(fmt::format("{}: sweep_version {}; this qwenbench reads {}", source,
                                 one_line(json["sweep_version"].dump(), 20), kSweepVersion));
  }
  SweepManifest manifest;
  try {
    manifest.name = json.at("name").get<std::string>();
    manifest.hash = json.at("hash").get<std::string>();
    for (const Json& cell : json.at("cells")) {
      manifest.cells.push_back(
          {cell.at("id").get<std::string>(), cell.at("settings").get<std::map<std::string, std::string>>()});
    }
  } catch (const Json::exception&) {
    throw InputError(source + ": damaged; remove the folder, or name another with -o");
  }
  return manifest;
}

void write_sweep_manifest(const std::filesystem::path& path, const SweepManifest& manifest) {
  Json json{
      {"sweep_version", kSweepVersion}, {"name", manifest.name}, {"hash", manifest.hash}, {"cells", Json::array()}};
  for (const SweepManifest::Cell& cell : manifest.cells) {
    json["cells"].push_back({{"id", cell.id}, {"settings", cell.settings}});
  }
  write_file_atomically(path, dump(json));
}

std::optional<CellFailure> read_cell_failure(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("exit_code") || !json["exit_code"].is_number_integer() ||
      !json.contains("message") || !json["message"].is_string()) {
    throw InputError(path.string() + ": no note of a failed cell; remove it");
  }
  return CellFailure{json["exit_code"].get<int>(), json["message"].get<std::string>()};
}

void write_cell_failure(const std::filesystem::path& path, const CellFailure& failure) {
  write_file_atomically(path, dump(Json{{"exit_code", failure.exit_code}, {"message", failure.message}}));
}

}  // namespace qwenbench::report
