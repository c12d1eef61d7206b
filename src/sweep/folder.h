// A sweep's folder: sweep.json, cells/ID.json (a result file) or cells/ID.failed.json for each cell.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compare/files/run.h"
#include "profile/grid.h"
#include "report/sweep_file.h"

namespace qwenbench::sweep {

/// Where a cell's result file is, or will be.
std::filesystem::path cell_file(const std::filesystem::path& folder, const std::string& id);
std::filesystem::path failure_file(const std::filesystem::path& folder, const std::string& id);

/// Writes sweep.json; throws InputError where the folder holds another sweep.
void claim_folder(const std::filesystem::path& folder, const profile::Sweep& sweep);

/// What is known of one cell.
struct CellResult {
  std::string id;
  std::vector<compare::Run> runs;  // one a variant, "cell" among the keys; empty: not done
  std::optional<report::CellFailure> failure;

  bool done() const { return !runs.empty(); }
};

/// Reads every cell of the sweep; a file that was cut short (was_cancelled) counts as not done. Throws InputError for
/// a file that is none.
std::vector<CellResult> read_cells(const std::filesystem::path& folder, const profile::Sweep& sweep, bool keep_curves);

/// All finished cells of some other night's folder, whatever its grid; "cell" and "side" among the keys.
std::vector<compare::Run> read_all_cells(const std::filesystem::path& folder, const std::string& side);

/// Copies cells of `from` that `folder` does not have. Throws InputError where `from` holds another sweep.
std::size_t merge_folder(const std::filesystem::path& from, const std::filesystem::path& folder,
                         const profile::Sweep& sweep);

}  // namespace qwenbench::sweep
