#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "base/thread_pool.h"
#include "compare/files/comparison.h"
#include "compare/files/conclusions.h"
#include "compare/files/file_tests.h"
#include "compare/files/filter.h"
#include "compare/files/grid.h"
#include "compare/pair.h"
#include "report/metrics.h"

namespace qwenbench::compare {
namespace {

/// One change on its way into a line.
struct Placed {
  std::size_t row = 0, column = 0;
  Tested tested;
};

class FileComparer {
 public:
  FileComparer(const std::vector<Run>& runs, const FileCompareOptions& options)
      : options_(options), filter_(options.filter), grid_(make_grid(runs, options)) {
    result_.row_keys = options.row_keys;
    result_.column_key = options.column_key;
    result_.rows = grid_.rows;
    result_.columns = grid_.columns;
  }

  FileComparison run() {
    match();
    name_differences();
    test();
    add_failures();
    sort_lines();
    add_geomeans();
    conclude(grid_, matches_, options_, result_);
    return std::move(result_);
  }

 private:
  // ---- who is compared with whom ----

  void match() {
    for (std::size_t column = 0; column < grid_.columns.size(); ++column) {
      std::set<std::string> files;
      for (std::size_t row = 0; row < grid_.rows.size(); ++row) {
        if (const Cell* cell = grid_.cell(row, column)) {
          for (const Run* run : *cell) files.insert(run->file());
        }
      }
      result_.files.push_back(files.size());
    }
    for (std::size_t row = 0; row < grid_.rows.size(); ++row) {
      const Cell* base = grid_.cell(row, 0);
      for (std::size_t column = 1; column < grid_.columns.size(); ++column) {
        const Cell* other = grid_.cell(row, column);
        if (base != nullptr && other != nullptr) matches_.push_back({row, column, base, other});
      }
    }
    if (matches_.empty()) {
      throw InputError(
          fmt::format("no {} stands on both sides: nothing to compare (--row and --col choose what is matched)",
                      fmt::join(options_.row_keys, ", ")));
    }
  }

  // ---- what differs ----

  void name_differences() {
    std::set<std::string> expected(options_.row_keys.begin(), options_.row_keys.end());
    expected.insert(options_.column_key);
    if (expected.contains("variant"))
      expected.insert({"kv_cache_dtype", "kv_scales", "kv_scales.sha256", "num_kv_blocks"});
    for (const Match& match : matches_) {
      const Run& first = *match.base->front();
      for (const Run* run : *match.base) add_differences(first, *run, 0, expected);
      for (const Run* run : *match.other) add_differences(first, *run, match.column, expected);
    }
  }

  void add_differences(const Run& first, const Run& other, std::size_t column, const std::set<std::string>& expected) {
    if (&first == &other) return;
    for (Difference& difference : find_differences(first, other, expected)) {
      const std::string& name = grid_.columns[column];
      const auto same = [&](const NamedDifference& known) {
        return known.difference == difference && known.column == name;
      };
      const auto found = std::find_if(result_.differences.begin(), result_.differences.end(), same);
      if (found != result_.differences.end()) {
        ++found->runs;
      } else {
        result_.differences.push_back({std::move(difference), name, 1});
      }
    }
  }

  // ---- tests ----

  TestOptions test_options(const Run& base) const {
    TestOptions tests;
    tests.alpha = options_.alpha;
    tests.bootstrap_resamples = options_.bootstrap_resamples;
    tests.bootstrap_seed = options_.bootstrap_seed;
    if (!options_.timing_metrics.empty()) tests.timing_metrics = options_.timing_metrics;
    constexpr std::string_view kPrefix = "quality.minimum_effect.";
    for (const auto& [key, value] : base.keys) {
      if (key.starts_with(kPrefix)) tests.minimum_effect[key.substr(kPrefix.size())] = std::stod(value);
    }
    for (const auto& [metric, effect] : options_.minimum_effect) tests.minimum_effect[metric] = effect;
    check_minimum_effects(tests.minimum_effect);
    return tests;
  }

  bool wanted(const Run& run, const std::string& metric) const {
    return filter_([&](const std::string& key) { return key == "metric" ? metric : key_of(run, key); });
  }

  /// On all cores: every pair of cells takes a bootstrap.
  void test_matches(std::vector<std::vector<Tested>>& of_match) const {
    const report::NoiseFile* noise = options_.noise ? &*options_.noise : nullptr;
    const auto threads = std::min(static_cast<std::size_t>(available_cores()), matches_.size());
    ThreadPool pool(static_cast<int>(threads));
    pool.parallel_for(static_cast<std::int64_t>(matches_.size()), [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        const Match& match = matches_[i];
        of_match[i] = test_cells(*match.base, *match.other, test_options(*match.base->front()), noise);
      }
    });
  }

  void test() {
    std::vector<std::vector<Tested>> of_match(matches_.size());
    test_matches(of_match);
    std::vector<Placed> placed;
    for (std::size_t i = 0; i < matches_.size(); ++i) {
      for (Tested& tested : of_match[i]) {
        if (wanted(*matches_[i].base->front(), tested.comparison.metric)) {
          placed.push_back({matches_[i].row, matches_[i].column, std::move(tested)});
        }
      }
    }
    if (placed.empty()) throw InputError("the files have no metric in common that --filter lets through");
    std::vector<Tested> tested;
    for (const Placed& one : placed) {
      tested.push_back(one.tested);
      result_.tests += one.tested.comparison.p_value && !one.tested.identical;
    }
    std::vector<report::Comparison> decided = decide(std::move(tested), options_.alpha, true);
    for (std::size_t i = 0; i < placed.size(); ++i) place(placed[i], std::move(decided[i]));
    settle_identical(placed);
    fill_centers();
  }

  void place(const Placed& placed, report::Comparison&& comparison) {
    Line& line = line_of(placed.row, comparison.metric);
    line.unit = comparison.unit;
    Line::Entry& entry = line.entries[placed.column];
    entry.identical = placed.tested.identical;
    entry.change = std::move(comparison);
  }

  /// Where every token has the same likelihood in both files, the engine computed the same: however few the questions
  /// were, the answers are the same.
  void settle_identical(const std::vector<Placed>& placed) {
    std::set<std::pair<std::size_t, std::size_t>> equal;  // row and column
    for (const Placed& one : placed) {
      if (one.tested.comparison.metric == "ppl" && one.tested.identical) equal.insert({one.row, one.column});
    }
    for (const Placed& one : placed) {
      if (!one.tested.identical || !equal.contains({one.row, one.column})) continue;
      line_of(one.row, one.tested.comparison.metric).entries[one.column].change->verdict = "same";
    }
  }

  Line& line_of(std::size_t row, const std::string& metric) {
    const auto [known, added] = lines_.try_emplace({row, metric}, result_.lines.size());
    if (!added) return result_.lines[known->second];
    Line& line = result_.lines.emplace_back();
    line.row = grid_.rows[row];
    line.metric = metric;
    line.entries.resize(grid_.columns.size());
    return line;
  }

  /// By metric in order of appearance, then by row.
  void sort_lines() {
    std::map<std::string, std::size_t> metrics, rows;
    for (const Line& line : result_.lines) metrics.try_emplace(line.metric, metrics.size());
    for (std::size_t i = 0; i < grid_.rows.size(); ++i) rows[grid_.rows[i]] = i;
    std::stable_sort(result_.lines.begin(), result_.lines.end(), [&](const Line& a, const Line& b) {
      return std::pair(metrics.at(a.metric), rows.at(a.row)) < std::pair(metrics.at(b.metric), rows.at(b.row));
    });
  }

  void fill_centers() {
    for (const auto& [key, place] : lines_) {
      Line& line = result_.lines[place];
      for (std::size_t column = 0; column < grid_.columns.size(); ++column) {
        if (const Cell* cell = grid_.cell(key.first, column))
          line.entries[column].center = center_of(*cell, line.metric);
      }
    }
  }

  // ---- requests that failed: counted, not tested ----

  static std::optional<double> failed_share(const Cell& cell) {
    double failed = 0, all = 0;
    for (const Run* run : cell) {
      failed += static_cast<double>(run->variant->summary.failed);
      all += static_cast<double>(run->variant->summary.failed + run->variant->summary.completed);
    }
    if (all == 0) return std::nullopt;
    return failed / all;
  }

  void add_failures() {
    for (const Match& match : matches_) {
      const auto base = failed_share(*match.base), other = failed_share(*match.other);
      if (!base || !other || (*base == 0 && *other == 0) || !wanted(*match.base->front(), "failed")) continue;
      Line& line = line_of(match.row, "failed");
      line.entries[0].center = Center{*base, std::nullopt, std::nullopt, static_cast<std::int64_t>(match.base->size())};
      Line::Entry& entry = line.entries[match.column];
      entry.center = Center{*other, std::nullopt, std::nullopt, static_cast<std::int64_t>(match.other->size())};
      report::Comparison change;
      change.metric = "failed";
      change.baseline = grid_.columns[0];
      change.candidate = grid_.columns[match.column];
      change.baseline_value = base;
      change.candidate_value = other;
      change.change = *other - *base;
      change.test = "counted";
      change.verdict = *other > *base ? "regression" : *other < *base ? "improvement" : "same";
      entry.change = std::move(change);
    }
  }

  // ---- sums over rows ----

  void add_geomeans() {
    for (std::size_t begin = 0, end = 0; begin < result_.lines.size(); begin = end) {
      while (end < result_.lines.size() && result_.lines[end].metric == result_.lines[begin].metric) ++end;
      if (end - begin >= 2 && result_.lines[begin].metric != "failed") add_geomean(begin, end);
    }
  }

  void add_geomean(std::size_t begin, std::size_t end) {
    Geomean mean{result_.lines[begin].metric, result_.lines[begin].unit, {}, {}};
    for (std::size_t i = begin; i < end; ++i) {  // of ratios only: a mean over shares and distances says nothing
      for (const Line::Entry& entry : result_.lines[i].entries) {
        if (entry.change && !entry.change->relative) return;
      }
    }
    const auto over = [&](auto&& value) -> std::optional<double> {
      double sum = 0;
      for (std::size_t i = begin; i < end; ++i) {
        const std::optional<double> x = value(result_.lines[i]);
        if (!x || !(*x > 0)) return std::nullopt;
        sum += std::log(*x);
      }
      return std::exp(sum / static_cast<double>(end - begin));
    };
    for (std::size_t column = 0; column < grid_.columns.size(); ++column) {
      mean.values.push_back(over([&](const Line& line) -> std::optional<double> {
        if (!line.entries[column].center) return std::nullopt;
        return line.entries[column].center->value;
      }));
      mean.ratios.push_back(over([&](const Line& line) -> std::optional<double> {
        const auto& change = line.entries[column].change;
        if (!change || !change->relative || !change->change) return std::nullopt;
        return 1 + *change->change;
      }));
    }
    if (std::any_of(mean.values.begin(), mean.values.end(), [](const auto& value) { return value.has_value(); })) {
      result_.geomeans.push_back(std::move(mean));
    }
  }

  const FileCompareOptions& options_;
  Filter filter_;
  Grid grid_;
  std::vector<Match> matches_;
  std::map<std::pair<std::size_t, std::string>, std::size_t> lines_;  // places in result_.lines while they are added
  FileComparison result_;
};

}  // namespace

std::size_t FileComparison::count(const std::string& verdict) const {
  std::size_t found = 0;
  for (const Line& line : lines) {
    for (const Line::Entry& entry : line.entries) {
      found += entry.change && entry.change->verdict == verdict && !entry.accepted;
    }
  }
  return found;
}

bool FileComparison::comparable() const {
  return std::none_of(differences.begin(), differences.end(),
                      [](const NamedDifference& named) { return named.difference.forbids; });
}

ExitCode FileComparison::exit_code(bool strict, bool force) const {
  if (!force && !comparable()) return ExitCode::kNotComparable;
  if (count("regression") > 0 || !failed_slo.empty()) return ExitCode::kRegression;
  if (strict && count("inconclusive") > 0) return ExitCode::kInconclusive;
  return ExitCode::kOk;
}

FileComparison compare_files(const std::vector<Run>& runs, const FileCompareOptions& options) {
  return FileComparer(runs, options).run();
}

}  // namespace qwenbench::compare
