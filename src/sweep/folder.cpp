#include "sweep/folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::sweep {
namespace {

namespace fs = std::filesystem;

fs::path manifest_file(const fs::path& folder) { return folder / "sweep.json"; }

report::SweepManifest manifest_of(const profile::Sweep& sweep) {
  report::SweepManifest manifest{sweep.name, sweep.hash, {}};
  for (const profile::Cell& cell : sweep.cells) {
    auto& entry = manifest.cells.emplace_back();
    entry.id = cell.id;
    for (std::size_t i = 0; i < sweep.axes.size(); ++i) {
      entry.settings[sweep.axes[i].name] = sweep.axes[i].values[cell.choice[i]].label;
    }
  }
  return manifest;
}

void require_same(const fs::path& folder, const profile::Sweep& sweep) {
  if (report::read_sweep_manifest(manifest_file(folder)).hash == sweep.hash) return;
  throw InputError(fmt::format("{} holds another sweep (other axes or another profile); name another folder with -o",
                               folder.string()));
}

/// The runs of one cell's file; empty where the run was cut short.
std::vector<compare::Run> read_cell(const fs::path& path, const std::string& id, const std::string& side,
                                    bool keep_curves) {
  std::vector<compare::Run> runs = compare::load_runs({{path, "", side}}, {true, keep_curves});
  if (runs.front().result->was_cancelled) return {};
  for (compare::Run& run : runs) run.keys["cell"] = id;
  return runs;
}

}  // namespace

fs::path cell_file(const fs::path& folder, const std::string& id) { return folder / "cells" / (id + ".json"); }

fs::path failure_file(const fs::path& folder, const std::string& id) {
  return folder / "cells" / (id + ".failed.json");
}

void claim_folder(const fs::path& folder, const profile::Sweep& sweep) {
  if (fs::exists(manifest_file(folder))) return require_same(folder, sweep);
  write_sweep_manifest(manifest_file(folder), manifest_of(sweep));
}

std::vector<CellResult> read_cells(const fs::path& folder, const profile::Sweep& sweep, bool keep_curves) {
  std::vector<CellResult> cells;
  for (const profile::Cell& cell : sweep.cells) {
    CellResult& result = cells.emplace_back();
    result.id = cell.id;
    const fs::path file = cell_file(folder, cell.id);
    if (fs::exists(file)) result.runs = read_cell(file, cell.id, "", keep_curves);
    if (result.runs.empty()) result.failure = report::read_cell_failure(failure_file(folder, cell.id));
  }
  return cells;
}

std::vector<compare::Run> read_all_cells(const fs::path& folder, const std::string& side) {
  const report::SweepManifest manifest = report::read_sweep_manifest(manifest_file(folder));
  std::vector<compare::Run> runs;
  for (const report::SweepManifest::Cell& cell : manifest.cells) {
    const fs::path file = cell_file(folder, cell.id);
    if (!fs::exists(file)) continue;
    auto of_cell = read_cell(file, cell.id, side, false);
    runs.insert(runs.end(), std::make_move_iterator(of_cell.begin()), std::make_move_iterator(of_cell.end()));
  }
  return runs;
}

std::size_t merge_folder(const fs::path& from, const fs::path& folder, const profile::Sweep& sweep) {
  require_same(from, sweep);
  std::size_t copied = 0;
  for (const profile::Cell& cell : sweep.cells) {
    for (const auto place : {cell_file, failure_file}) {
      const fs::path source = place(from, cell.id), target = place(folder, cell.id);
      if (!fs::exists(source) || fs::exists(target)) continue;
      write_file_atomically(target, read_file(source));
      ++copied;
    }
  }
  return copied;
}

}  // namespace qwenbench::sweep
