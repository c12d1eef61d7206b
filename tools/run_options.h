// The command line of `qwenbench run`.
#pragma once

#include <CLI/CLI.hpp>
#include <span>
#include <string>
#include <vector>

#include "profile/profile.h"

namespace qwenbench::tools {

struct RunArguments {
  std::string profile;                 // empty: defaults, and --model names the checkpoint
  std::vector<std::string> sets;       // --set texts
  std::vector<std::string> shortcuts;  // plain flags, as --set texts; they win
  std::string output;
  std::string report;
  std::string save_logits, reference_logits;
  std::string assume_devices;
  bool quiet = false;
  bool dry_run = false;
};

/// A plain flag that stands for one field of the profile.
struct Shortcut {
  const char* flag;
  const char* path;
  const char* type;
  const char* help;
};

void add_run_options(CLI::App& app, RunArguments& arguments);

/// --profile, --set and the shortcuts: what every command that runs a profile has.
void add_profile_options(CLI::App& app, RunArguments& arguments, std::span<const Shortcut> shortcuts);

/// Throws InputError where there is neither a profile nor a model.
profile::Profile load_profile(const RunArguments& arguments, const std::string& command = "qwenbench run");

}  // namespace qwenbench::tools
