// The command line of `qwenbench sweep`.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "sweep/run.h"

namespace qwenbench::tools {

struct SweepArguments {
  std::string file;  // NAME or path
  std::vector<std::string> sets;
  std::string output;  // folder
  std::string shard, baseline, accept, noise_floor, assume_devices, html;
  std::vector<std::string> merge, thresholds;
  bool merges = false, resume = false, dry_run = false, strict = false, force = false, quiet = false;
};

void add_sweep_options(CLI::App& app, SweepArguments& arguments);

/// "2/8"; throws InputError.
sweep::Shard parse_shard(const std::string& text);

/// The folder given, or results/NAME-sweep.
std::filesystem::path folder_of(const SweepArguments& arguments, const std::string& name);

}  // namespace qwenbench::tools
