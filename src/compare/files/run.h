// One variant of one result file, with the names by which runs are filtered, put in rows and columns, and told apart.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "report/result.h"

namespace qwenbench::compare {

/// Quantiles of a variant's pooled samples, for charts: 0 %, 1 %, ..., 100 %, milliseconds; empty where not kept.
struct LatencyCurves {
  std::vector<double> ttft, itl;
};

struct Run {
  std::shared_ptr<const report::Result> result;  // without the requests' raw samples
  const report::VariantResult* variant = nullptr;
  LatencyCurves curves;
  /// "file", "side", "variant", "kv_cache_dtype", "kv_scales", "model", "device", "gpu", "cpu", "build_commit",
  /// "weights", and every field of the profile by its dotted path.
  std::map<std::string, std::string> keys;

  const std::string& file() const { return keys.at("file"); }
};

/// A result file as it was named on the command line.
struct Input {
  std::filesystem::path path;
  std::string variant;  // "": all of them
  std::string side;     // "base" | "new" | "" where the columns are another key
};

/// "FILE" or "FILE:VARIANT".
Input parse_input(const std::string& text, const std::string& side);

struct LoadOptions {
  bool allow_partial = false;  // results of a cancelled run, or with values that are no numbers
  bool keep_curves = false;
};

/// Reads the files with all cores; the order of the runs is that of the inputs. Throws InputError, for the first input
/// that has one: unreadable, foreign, newer, cancelled or not finite (without allow_partial), no such variant, every
/// request failed.
std::vector<Run> load_runs(const std::vector<Input>& inputs, const LoadOptions& options);

/// The runs of one file that has been read. Throws as load_runs does.
std::vector<Run> runs_of(report::Result result, const Input& input, const LoadOptions& options);

/// Both come from one process: the same file, or a copy of it.
bool same_run(const Run& a, const Run& b);

/// The value of a key; throws InputError that names the nearest key where the run has none such.
const std::string& key_of(const Run& run, const std::string& key);

}  // namespace qwenbench::compare
