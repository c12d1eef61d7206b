// Result files against each other: matching, guards, verdicts, exit codes, on synthetic runs whose truth is known.
#include <doctest/doctest.h>

#include <algorithm>

#include "base/error.h"
#include "compare/files/comparison.h"
#include "compare/files/noise.h"
#include "compare/files/render.h"
#include "compare/files_synthetic.h"

using namespace qwenbench;
using namespace qwenbench::compare;
using synthetic::RunOf;
using synthetic::runs_of_files;

namespace {

FileCompareOptions options() {
  FileCompareOptions result;
  result.bootstrap_resamples = 1000;
  result.today = "2026-11-23";
  return result;
}

const Line& line(const FileComparison& comparison, const std::string& row, const std::string& metric) {
  for (const Line& one : comparison.lines) {
    if (one.row == row && one.metric == metric) return one;
  }
  FAIL("no line " << row << " " << metric);
  return comparison.lines.front();
}

std::string verdict(const FileComparison& comparison, const std::string& row, const std::string& metric) {
  const auto& change = line(comparison, row, metric).entries.at(1).change;
  REQUIRE(change);
  return change->verdict;
}

const NamedDifference* difference(const FileComparison& comparison, const std::string& name) {
  for (const NamedDifference& named : comparison.differences) {
    if (named.difference.name == name) return &named;
  }
  return nullptr;
}

bool noted(const FileComparison& comparison, const std::string& part) {
  return std::any_of(comparison.notes.begin(), comparison.notes.end(),
                     [&](const std::string& note) { return note.find(part) != std::string::npos; });
}

std::vector<Run> several(int files, double slow, double deviation = 0.005) {
  std::vector<RunOf> base, other;
  for (int i = 0; i < files; ++i) {
    base.push_back({.run_deviation = deviation, .seed = static_cast<std::uint64_t>(100 + i)});
    other.push_back({.slow = slow, .run_deviation = deviation, .seed = static_cast<std::uint64_t>(200 + i)});
  }
  return runs_of_files(base, other);
}

}  // namespace

TEST_CASE("files: two single ones; a slow-down, a speed-up and nothing at all") {
  const auto slow = compare_files(runs_of_files({{}}, {{.slow = 1.2}}), options());
  CHECK(slow.rows == std::vector<std::string>{"reference", "baseline"});
  CHECK(slow.columns == std::vector<std::string>{"base", "new"});
  CHECK(verdict(slow, "baseline", "median_ttft_ms") == "regression");
  CHECK(verdict(slow, "baseline", "output_throughput") == "regression");
  CHECK(slow.exit_code(false, false) == ExitCode::kRegression);
  CHECK(noted(slow, "one file a side: weak evidence"));

  const auto quick = compare_files(runs_of_files({{}}, {{.slow = 1 / 1.2}}), options());
  CHECK(verdict(quick, "reference", "output_throughput") == "improvement");
  CHECK(quick.exit_code(false, false) == ExitCode::kOk);

  const auto equal = compare_files(runs_of_files({{}}, {{}}), options());
  CHECK(equal.exit_code(false, false) == ExitCode::kOk);
  CHECK(verdict(equal, "baseline", "kld_mean") == "same");
  CHECK(line(equal, "baseline", "kld_mean").entries[1].identical);
  // 1 % between runs is assumed: within 2 % nothing can be shown, and nothing is claimed.
  CHECK(verdict(equal, "baseline", "median_ttft_ms") == "inconclusive");
  CHECK(equal.exit_code(true, false) == ExitCode::kInconclusive);
}

TEST_CASE("files: quality is paired by request") {
  const auto worse = compare_files(runs_of_files({{.kld = 0.002}}, {{.kld = 0.05}}), options());
  CHECK(verdict(worse, "baseline", "kld_mean") == "regression");
  CHECK(verdict(worse, "reference", "kld_mean") == "same");
  const auto wrong = compare_files(runs_of_files({{}}, {{.wrong_share = 0.2}}), options());
  CHECK(verdict(wrong, "baseline", "accuracy:recall") == "regression");
  // A reference that became worse does not show in what is measured against it, but in its perplexity.
  const auto broken = compare_files(runs_of_files({{}}, {{.ln_p_lost = 0.05}}), options());
  CHECK(verdict(broken, "reference", "ppl") == "regression");
  CHECK(*line(broken, "reference", "ppl").entries[1].change->change == doctest::Approx(std::expm1(0.05)).epsilon(0.01));
}

TEST_CASE("files: equal bits need no test, however few the questions") {
  const auto equal = compare_files(runs_of_files({{.questions = 10}}, {{.questions = 10}}), options());
  CHECK(verdict(equal, "baseline", "accuracy:recall") == "same");
  const auto other =
      compare_files(runs_of_files({{.questions = 10}}, {{.ln_p_lost = 1e-9, .questions = 10}}), options());
  CHECK(verdict(other, "baseline", "accuracy:recall") == "inconclusive");
}

TEST_CASE("files: several a side are the units") {
  const auto slow = compare_files(several(8, 1.05), options());
  CHECK(slow.files == std::vector<std::size_t>{8, 8});
  CHECK(verdict(slow, "baseline", "output_throughput") == "regression");
  const auto& change = *line(slow, "baseline", "output_throughput").entries[1].change;
  CHECK(change.test == "Mann-Whitney U over files");
  CHECK(*change.ci_low < 1 / 1.05 - 1);
  CHECK(*change.ci_high > 1 / 1.05 - 1);
  CHECK(line(slow, "baseline", "output_throughput").entries[0].center->files == 8);
  const auto equal = compare_files(several(12, 1.0), options());
  CHECK(verdict(equal, "baseline", "output_throughput") == "same");
  // Medians of a side, and the mean of the ratios over the rows.
  REQUIRE_FALSE(slow.geomeans.empty());
  for (const Geomean& mean : slow.geomeans) {
    if (mean.metric == "output_throughput") CHECK(*mean.ratios[1] == doctest::Approx(1 / 1.05).epsilon(0.01));
  }
}

TEST_CASE("files: a p99 of few samples is not tested, over files neither") {
  const auto runs = several(8, 1.0);
  for (const Line& one : compare_files(runs, options()).lines) CHECK(one.metric != "p99_itl_ms");
}

TEST_CASE("files: too few could never have decided, and how many would") {
  const auto three = compare_files(several(3, 1.5), options());
  CHECK(verdict(three, "baseline", "output_throughput") == "inconclusive");
  CHECK_FALSE(line(three, "baseline", "output_throughput").entries[1].change->could_decide);
  CHECK(noted(three, "could never have been decided: 3 files a side"));
  CHECK(three.exit_code(false, false) == ExitCode::kOk);
  CHECK(three.exit_code(true, false) == ExitCode::kInconclusive);
}

TEST_CASE("files: the columns can be another key, and the rows several") {
  std::vector<RunOf> all{{.max_num_seqs = 8}, {.slow = 0.8, .max_num_seqs = 16}, {.slow = 1.3, .max_num_seqs = 32}};
  FileCompareOptions by_key = options();
  by_key.column_key = "engine.max_num_seqs";
  const auto runs = runs_of_files(all, {});
  const auto grid = compare_files(runs, by_key);
  CHECK(grid.columns == std::vector<std::string>{"8", "16", "32"});
  CHECK(line(grid, "baseline", "output_throughput").entries[1].change->verdict == "improvement");
  CHECK(line(grid, "baseline", "output_throughput").entries[2].change->verdict == "regression");
  CHECK(difference(grid, "engine.max_num_seqs") == nullptr);
  by_key.base_column = "16";
  CHECK(compare_files(runs, by_key).columns == std::vector<std::string>{"16", "8", "32"});
  by_key.base_column = "64";
  CHECK_THROWS_AS(compare_files(runs, by_key), InputError);
  by_key.base_column.clear();
  by_key.column_key = "engine.max_num_seq";
  CHECK_THROWS_WITH_AS(compare_files(runs, by_key),
                       "base0.json has no key \"engine.max_num_seq\"; do you mean \"engine.max_num_seqs\"?",
                       InputError);
  FileCompareOptions by_variant = options();
  by_variant.column_key = "variant";
  by_variant.row_keys = {"engine.max_num_seqs"};
  const auto variants = compare_files(runs, by_variant);
  CHECK(variants.rows == std::vector<std::string>{"8", "16", "32"});
  CHECK(line(variants, "8", "output_throughput").entries[1].change->test == "t on log ratios");
}

TEST_CASE("files: filters") {
  const auto runs = runs_of_files({{}}, {{.slow = 1.2}});
  const auto lines = [&](const std::string& filter) {
    FileCompareOptions with = options();
    with.filter = filter;
    return compare_files(runs, with).lines.size();
  };
  const std::size_t all = lines("");
  CHECK(lines("variant:baseline") * 2 == all);
  CHECK(lines("-variant:baseline") * 2 == all);
  CHECK(lines("variant:/^base/ AND metric:/ttft/") == 1);
  CHECK(lines("variant:baseline metric:(median_ttft_ms OR kld_mean)") == 2);
  CHECK(lines("metric:kld_mean OR metric:ppl") == 4);
  CHECK(lines("NOT (variant:\"baseline\" OR metric:/./) OR metric:kld_mean") == 2);
  for (const char* bad : {"variant", "variant:", "variant:(a OR", "(variant:a", "variant:a)", "variant:/(/", ":a",
                          "variant:\"a", "OR", "- ", "variant:x"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(lines(bad), InputError);
  }
  CHECK_THROWS_AS(lines(std::string(1000, '(')), InputError);
}

TEST_CASE("files: what forbids a comparison, and what is only named") {
  const auto exit_of = [](const RunOf& other) {
    return compare_files(runs_of_files({{}}, {other}), options()).exit_code(false, false);
  };
  CHECK(exit_of({.model_fingerprint = "other"}) == ExitCode::kNotComparable);
  CHECK(exit_of({.requests = "other"}) == ExitCode::kNotComparable);
  CHECK(exit_of({.dataset = "other"}) == ExitCode::kNotComparable);
  CHECK(exit_of({.gpu = "H200"}) == ExitCode::kNotComparable);
  CHECK(exit_of({.weights = "dummy"}) == ExitCode::kNotComparable);
  const auto forced = compare_files(runs_of_files({{}}, {{.requests = "other"}}), options());
  CHECK(forced.exit_code(false, true) == ExitCode::kOk);
  CHECK(difference(forced, "workload.requests_sha256")->difference.forbids);

  const auto named =
      compare_files(runs_of_files({{}}, {{.max_num_seqs = 32, .dirty = true, .driver = "999.1"}}), options());
  CHECK(named.exit_code(false, false) == ExitCode::kOk);
  CHECK(difference(named, "environment.driver_version")->difference.other == "999.1");
  CHECK(difference(named, "environment.git_is_dirty")->difference.other == "dirty build");
  CHECK(difference(named, "engine.max_num_seqs")->difference.base == "16");
  // Within a side, too.
  const auto mixed = compare_files(runs_of_files({{}, {.gpu = "H200"}}, {{}}), options());
  CHECK(mixed.exit_code(false, false) == ExitCode::kNotComparable);
}

TEST_CASE("files: thresholds, noise floors") {
  FileCompareOptions with = options();
  with.minimum_effect = {{"timing", 0.5}};
  const auto runs = runs_of_files({{}}, {{.slow = 1.2}});
  CHECK(compare_files(runs, with).exit_code(false, false) == ExitCode::kOk);
  CHECK(verdict(compare_files(runs, with), "baseline", "median_ttft_ms") == "same");

  // 15 % between runs of one build: 20 % slower is nothing.
  FileCompareOptions noisy = options();
  report::NoiseEntry entry;
  entry.host = host_of(runs.front().result->environment);
  for (const char* metric : {"median_ttft_ms", "median_itl_ms", "output_throughput", "decode_throughput"}) {
    entry.metrics[metric] = {0.15, 10};
  }
  noisy.noise = report::NoiseFile{{entry}};
  const auto weak = compare_files(runs, noisy);
  CHECK(weak.exit_code(false, false) == ExitCode::kOk);
  CHECK(line(weak, "baseline", "median_ttft_ms").entries[1].change->minimum_effect == 0.3);
  CHECK(noted(weak, "known noise"));
}

TEST_CASE("files: noise is measured between repeated runs of one build") {
  std::vector<RunOf> repeats;
  for (std::uint64_t i = 0; i < 40; ++i) repeats.push_back({.run_deviation = 0.03, .seed = i});
  const auto entry = measure_noise(runs_of_files(repeats, {}), {"output_throughput"});
  CHECK(entry.metrics.at("output_throughput").deviation == doctest::Approx(0.03).epsilon(0.3));
  CHECK(entry.metrics.at("output_throughput").degrees_of_freedom == 39);
  CHECK_THROWS_AS(measure_noise(runs_of_files({{}}, {}), {"output_throughput"}), InputError);
  CHECK_THROWS_AS(measure_noise(runs_of_files({{}, {.max_num_seqs = 8}}, {}), {"output_throughput"}), InputError);
}

TEST_CASE("files: accepted regressions end, and do not cover more than was accepted") {
  const auto exit_with = [](const report::Acceptance& acceptance, FileComparison* out = nullptr) {
    FileCompareOptions with = options();
    with.filter = "metric:median_ttft_ms";
    with.accepted = {acceptance};
    FileComparison comparison = compare_files(runs_of_files({{}}, {{.slow = 1.2}}), with);
    if (out != nullptr) *out = comparison;
    return comparison.exit_code(false, false);
  };
  FileComparison comparison;
  CHECK(exit_with({"median_ttft_ms", "", "known", "2026-11-23", std::nullopt}, &comparison) == ExitCode::kOk);
  CHECK(comparison.count("regression") == 0);
  CHECK(render_text(comparison, {}).find("median_ttft_ms of baseline, until 2026-11-23: known") != std::string::npos);
  CHECK(exit_with({"median_ttft_ms", "", "known", "2026-11-22", std::nullopt}, &comparison) == ExitCode::kRegression);
  CHECK(noted(comparison, "the acceptance ended on 2026-11-22"));
  CHECK(exit_with({"median_ttft_ms", "baseline", "known", "2027-01-01", std::nullopt}) == ExitCode::kRegression);
  CHECK(exit_with({"median_ttft_ms", "", "known", "2027-01-01", 0.1}, &comparison) == ExitCode::kRegression);
  CHECK(noted(comparison, "worse than the 0.1"));
  CHECK(exit_with({"median_ttft_ms", "", "known", "2027-01-01", 0.5}) == ExitCode::kOk);
  CHECK(exit_with({"kld_mean", "", "old", "2027-01-01", std::nullopt}, &comparison) == ExitCode::kRegression);
  CHECK(noted(comparison, "is none any more"));
}

TEST_CASE("files: requests that fail, missed slo, half results, what is no number") {
  const auto failing = compare_files(runs_of_files({{}}, {{.failed = 2}}), options());
  CHECK(verdict(failing, "baseline", "failed") == "regression");
  CHECK(failing.exit_code(false, false) == ExitCode::kRegression);
  CHECK_THROWS_WITH_AS(runs_of_files({{}}, {{.failed = 96}}), doctest::Contains("every request failed"), InputError);
  CHECK_THROWS_WITH_AS(runs_of_files({{}}, {{.cancelled = true}}), doctest::Contains("partial results"), InputError);
  CHECK_THROWS_WITH_AS(runs_of_files({{}}, {{.not_finite = true}}), doctest::Contains("NaN"), InputError);

  const auto missed = compare_files(runs_of_files({{.slo_max = 1000}}, {{.slo_max = 1000}}), options());
  CHECK(missed.failed_slo.empty());
  const auto slow = compare_files(runs_of_files({{.slo_max = 1}}, {{.slo_max = 1}}), options());
  REQUIRE(slow.failed_slo.size() == 2);
  CHECK(slow.failed_slo[0].base_failed_too);
  CHECK(slow.exit_code(false, false) == ExitCode::kRegression);
}

TEST_CASE("files: a variant or a quality that stands on one side only is said") {
  const auto quality = compare_files(runs_of_files({{}}, {{.scored = false}}), options());
  CHECK(noted(quality, "quality of baseline in new was measured on one side only"));
  const auto variant = compare_files(runs_of_files({{.variants = 2}}, {{.variants = 1}}), options());
  CHECK(noted(variant, "baseline stands only in base"));
  const auto fewer = compare_files(runs_of_files({{}}, {{.questions = 30}}), options());
  CHECK(noted(fewer, "30 of 60 scored requests stand on both sides"));
}
