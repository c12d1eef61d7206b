// A sweep file: a profile plus axes, from which the Profiles of all cells are made.
//   "axes": {"engine.max_num_seqs": [4, 8],                                  one field, several values
//            "prefill": {"small": {"engine.max_num_batched_tokens": 256, ...}, "large": {...}}}   linked fields
//   "exclude": [{"engine.max_num_seqs": 8, "prefill": "small"}, ...]          combinations that are left out
//   "objective": {"metric": "output_throughput", "variant": "calibrated"}     what the champion is best in
//   "constraints": [{"metric": "median_ttft_ms", "max": 200}, ...]            what it must hold, beside slo and ceiling
//   "pareto": ["output_throughput", "median_ttft_ms", "kld_mean"]
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "profile/profile.h"

namespace qwenbench::profile {

struct AxisValue {
  std::string label;                                          // "8", "small"
  std::vector<std::pair<std::string, std::string>> settings;  // field -> JSON text
};

struct Axis {
  std::string name;  // the field, or the name of linked fields
  std::vector<AxisValue> values;
};

struct Cell {
  std::string id;                   // a file name that is the same wherever the cell has the same place on the axes
  std::vector<std::size_t> choice;  // index of the value on each axis
  Profile profile;
};

struct Objective {
  std::string metric = "output_throughput";
  std::string variant;  // "": every variant of a cell is a candidate
};

struct Sweep {
  std::string name;
  std::vector<Axis> axes;
  std::vector<Cell> cells;  // the last axis runs fastest; excluded ones are left out
  Objective objective;
  std::vector<Slo> constraints;
  std::vector<std::string> pareto{"output_throughput", "median_ttft_ms", "kld_mean"};
  std::string hash;  // of all cells' profiles: two files with the same hash are the same sweep
};

/// `overrides` are --set texts over every cell. Throws InputError: what load_profile throws (naming the cell), no axes,
/// an axis without values or with one twice, an exclude that fits no cell, no cell left, more than 10,000 cells.
Sweep load_sweep(const std::string& name, const std::vector<std::string>& overrides);
Sweep parse_sweep(const std::string& text, const std::string& source, const std::filesystem::path& folder,
                  const std::vector<std::string>& overrides = {});

/// "max_num_seqs=8 prefill=small": the cell for people.
std::string describe_cell(const Sweep& sweep, const Cell& cell);

}  // namespace qwenbench::profile
