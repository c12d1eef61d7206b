// What a comparison of result files says, as plain data: the renderers and the exit code read it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "compare/files/guards.h"
#include "compare/files/run.h"
#include "report/accept_file.h"
#include "report/noise_file.h"
#include "report/result.h"

namespace qwenbench::compare {

/// Value of one metric of one cell. One file: its own value and Student's t over its trials (quality: 1.96 standard
/// errors clustered by request); several files: their median between order statistics.
struct Center {
  double value = 0;                 // in the metric's unit
  std::optional<double> low, high;  // 95 % interval; null: so few samples have none
  std::int64_t files = 1;
};

/// One metric in one row. entries[0] is the base column.
struct Line {
  std::string row, metric, unit;
  struct Entry {
    std::optional<Center> center;
    std::optional<report::Comparison> change;  // against the base column
    bool identical = false;                    // bit for bit, in every sample: no test was needed
    std::optional<report::Acceptance> accepted;
  };
  std::vector<Entry> entries;
};

/// Over the rows of one metric: geometric mean of each column (null where a value is not positive), and of the ratios.
struct Geomean {
  std::string metric, unit;
  std::vector<std::optional<double>> values, ratios;  // by column; ratios[0] is null
};

struct NamedDifference {
  Difference difference;
  std::string column;  // of the other side
  std::size_t runs = 1;
};

struct FailedSlo {
  std::string row, column, text;
  bool base_failed_too = false;
};

struct FileComparison {
  std::vector<std::string> row_keys;
  std::string column_key;
  std::vector<std::string> rows, columns;
  std::vector<std::size_t> files;  // by column
  std::vector<Line> lines;         // by metric, then row
  std::vector<Geomean> geomeans;   // of metrics with two rows and more
  std::vector<NamedDifference> differences;
  std::vector<FailedSlo> failed_slo;
  std::vector<std::string> notes;  // sentences: what weakens the comparison
  std::size_t tests = 0;           // over which Holm corrected

  /// "regression" | "improvement" | ..., of the lines that are not accepted.
  std::size_t count(const std::string& verdict) const;
  bool comparable() const;
  /// 4 where something forbids and `force` is off; 1 regression or failed slo; 3 inconclusive, with `strict`; 0.
  ExitCode exit_code(bool strict, bool force) const;
};

struct FileCompareOptions {
  std::vector<std::string> row_keys{"variant"};
  std::string column_key = "side";
  std::string base_column;  // value of the column key; "": the first
  std::string filter;
  std::vector<std::string> timing_metrics;       // none: TestOptions' own
  std::map<std::string, double> minimum_effect;  // --threshold: over the base file's profile
  std::vector<report::Acceptance> accepted;
  std::optional<report::NoiseFile> noise;
  std::string today;  // "2026-11-23": acceptances end
  double alpha = 0.05;
  int bootstrap_resamples = 10000;
  std::uint64_t bootstrap_seed = 20250101;
};

/// Puts the runs into rows and columns, tests every column against the base column, corrects over all tests. Throws
/// InputError where a key is unknown or nothing is left to compare. What forbids a comparison is found and named, the
/// tests are done all the same: the caller asks comparable().
FileComparison compare_files(const std::vector<Run>& runs, const FileCompareOptions& options);

}  // namespace qwenbench::compare
