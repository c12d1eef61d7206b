// What lies in a sweep's folder beside the result files of its cells: sweep.json, and a note for each cell that failed.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qwenbench::report {

struct SweepManifest {
  std::string name;
  std::string hash;  // of all cells' profiles
  struct Cell {
    std::string id;
    std::map<std::string, std::string> settings;  // axis -> label
  };
  std::vector<Cell> cells;
};

/// Throws InputError: no sweep folder, or one of a newer version.
SweepManifest read_sweep_manifest(const std::filesystem::path& path);
void write_sweep_manifest(const std::filesystem::path& path, const SweepManifest& manifest);

struct CellFailure {
  int exit_code = 5;
  std::string message;  // one line
};
std::optional<CellFailure> read_cell_failure(const std::filesystem::path& path);  // nullopt: there is none
void write_cell_failure(const std::filesystem::path& path, const CellFailure& failure);

}  // namespace qwenbench::report
