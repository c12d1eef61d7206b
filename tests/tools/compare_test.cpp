// `qwenbench compare` as a user starts it: every form of the report pinned, every exit code, bad input.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/atomic_file.h"
#include "report/noise_file.h"
#include "report/result_file.h"
#include "report/sample_result.h"
#include "report/summary.h"
#include "tools/process.h"

using namespace qwenbench;
using qwenbench::test::run_process;
namespace fs = std::filesystem;

namespace {

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = "tools/golden/" + name;
  if (std::getenv("QWENBENCH_UPDATE_GOLDEN") != nullptr) write_file_atomically(path, text);
  CHECK(text == read_file(path));
}

/// A folder with result files: old.json, new.json (slower by 30 %), other.json (other requests), ...
class Files {
 public:
  Files() {
    fs::create_directories(folder_);
    write("old.json", [](report::Result&) {});
    write("new.json", [](report::Result& r) { slow_down(r, 1.3); });
    write("other.json", [](report::Result& r) { r.workload.requests_sha256 = "other"; });
    write("cancelled.json", [](report::Result& r) { r.was_cancelled = true; });
    write("failed.json", [](report::Result& r) {
      for (report::RequestRecord& request : r.variants[1].requests) request.error = "aborted";
      report::summarize(r.variants[1], {});
    });
    const std::string text = read_file(folder_ / "old.json");
    std::ofstream(folder_ / "cut.json") << text.substr(0, text.size() / 2);
    std::ofstream(folder_ / "foreign.json") << R"({"results": []})";
    std::string newer = text;
    newer.replace(newer.find("\"schema_version\": 1"), 19, "\"schema_version\": 9");
    std::ofstream(folder_ / "newer.json") << newer;
    std::string huge = text;
    huge.replace(huge.find("\"duration\": "), 12, "\"duration\": 1e999, \"x\": ");
    std::ofstream(folder_ / "huge.json") << huge;
  }
  ~Files() { fs::remove_all(folder_); }

  /// In the folder, so that reports name the files alike on every machine.
  test::ProcessResult compare(const std::string& arguments) const {
    return run_process("env -C " + folder_.string() + " qwenbench compare " + arguments);
  }
  fs::path path(const std::string& name) const { return folder_ / name; }

  void write(const std::string& name, const std::function<void(report::Result&)>& change) const {
    report::Result result = sample_result();
    result.slo.clear();
    result.benchmark_id = name;
    change(result);
    report::write_result(folder_ / name, result);
  }

  static void slow_down(report::Result& result, double factor) {
    for (report::VariantResult& variant : result.variants) {
      for (report::RequestRecord& request : variant.requests) {
        if (request.ttft) *request.ttft *= factor;
        for (double& gap : request.itls) gap *= factor;
      }
      for (report::Trial& trial : variant.trials) trial.duration *= factor, trial.decode_seconds *= factor;
      report::summarize(variant, {});
    }
  }

 private:
  fs::path folder_ = fs::temp_directory_path() / ("qwenbench_compare_" + std::to_string(::getpid()));
};

}  // namespace

TEST_CASE("compare: every form of the report is pinned") {
  const Files files;
  check_golden("compare-help.txt", files.compare("--help").out);
  const auto text = files.compare("old.json new.json");
  CHECK(text.code == 1);
  CHECK(text.err.empty());
  check_golden("compare.txt", text.out);
  check_golden("compare.md", files.compare("old.json new.json --format markdown").out);
  check_golden("compare.csv", files.compare("old.json new.json --format csv").out);
  check_golden("compare.json", files.compare("old.json new.json --format json --filter variant:baseline").out);
  check_golden("compare-variants.txt", files.compare("old.json --filter 'metric:/kld|ttft/'").out);
}

TEST_CASE("compare: the JSON and the CSV form say what the text says") {
  const Files files;
  const auto json = nlohmann::json::parse(files.compare("old.json new.json --format json").out);
  CHECK(json["exit_code"] == 1);
  CHECK(json["outcome"] == "regression");
  std::size_t lines = 0;
  for (const auto& line : json["lines"]) lines += line["entries"].size();
  std::istringstream csv(files.compare("old.json new.json --format csv").out);
  std::size_t rows = 0, fields = 0;
  for (std::string row; std::getline(csv, row); ++rows) {
    const auto commas = static_cast<std::size_t>(std::count(row.begin(), row.end(), ','));
    if (rows == 0) fields = commas;
    CHECK(commas == fields);
  }
  CHECK(rows == lines + 1);
}

TEST_CASE("compare: exit codes") {
  const Files files;
  CHECK(files.compare("old.json old.json").code == 0);
  CHECK(files.compare("old.json new.json").code == 1);
  CHECK(files.compare("new.json old.json").code == 0);
  CHECK(files.compare("old.json new.json --threshold timing=100% --filter metric:/ms/").code == 0);
  const auto other = files.compare("old.json other.json");
  CHECK(other.code == 4);
  CHECK(other.out.find("workload.requests_sha256") != std::string::npos);
  CHECK(other.err.starts_with("qwenbench: not comparable"));
  CHECK(files.compare("old.json other.json --force").code == 0);
  CHECK(files.compare("old.json other.json --strict --force").code == 3);
  CHECK(files.compare("old.json cancelled.json --force").code == 0);
  CHECK(files.compare("old.json:baseline new.json:calibrated").code == 1);
  CHECK(files.compare("old.json:baseline old.json:calibrated --filter metric:/ms/").code == 0);
  CHECK(files.compare("--base old.json --new new.json --row variant").code == 1);
  CHECK(files.compare("old.json new.json --col environment.x").code == 2);
  CHECK(files.compare("old.json new.json --col engine.max_num_seqs").code == 2);
}

TEST_CASE("compare: bad input is one line, and never a silent pass") {
  const Files files;
  std::ofstream(files.path("accept.json")) << R"({"accepted": [{"metric": "median_ttft_ms", "reason": "x"}]})";
  std::ofstream(files.path("noise.json")) << R"({"noise_version": 7, "hosts": []})";
  const char* cases[] = {"",
                         "old.json",  // followed by nothing else, but with a filter that leaves one variant
                         "missing.json old.json",
                         "old.json cut.json",
                         "foreign.json old.json",
                         "old.json newer.json",
                         "old.json huge.json",
                         "old.json failed.json",
                         "old.json cancelled.json",
                         ". old.json",
                         "old.json new.json other.json",
                         "--base old.json",
                         "old.json --base old.json --new new.json",
                         "old.json:nobody new.json",
                         "old.json new.json --filter variant:nobody",
                         "old.json new.json --filter metric:nothing",
                         "old.json new.json --filter 'a b'",
                         "old.json new.json --threshold kld=1",
                         "old.json new.json --threshold kld_mean=-1",
                         "old.json new.json --threshold kld_mean",
                         "old.json new.json --metric speed",
                         "old.json new.json --format yaml",
                         "old.json new.json --accept accept.json",
                         "old.json new.json --accept missing.json",
                         "old.json new.json --noise-floor noise.json",
                         "old.json new.json --noise-floor foreign.json",
                         "old.json new.json -o /proc/nothing/x",
                         "--noise old.json",
                         "--noise old.json old.json",
                         "--noise old.json other.json",
                         "--nonsense"};
  for (const std::string arguments : cases) {
    CAPTURE(arguments);
    const auto result = files.compare(arguments == "old.json" ? "old.json --filter variant:baseline" : arguments);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(result.err.starts_with("qwenbench: error: "));
    CHECK(result.err.find('\n') == result.err.size() - 1);
  }
}

TEST_CASE("compare: noise is saved, found again, and is the threshold") {
  const Files files;
  const double factors[] = {1.0, 1.2, 0.85, 1.1};
  std::string names;
  for (int i = 0; i < 4; ++i) {
    const std::string name = "repeat" + std::to_string(i) + ".json";
    files.write(name, [&](report::Result& r) { Files::slow_down(r, factors[i]); });
    names += " " + name;
  }
  const auto saved = files.compare("--noise" + names);
  CHECK(saved.code == 0);
  CHECK(saved.err == "noise floor written to results/noise.json\n");
  const auto noise = report::read_noise_file(files.path("results/noise.json"));
  REQUIRE(noise.hosts.size() == 1);
  // The sample deviation of ln 1, ln 1.2, ln 0.85, ln 1.1.
  CHECK(noise.hosts[0].metrics.at("median_ttft_ms").deviation == doctest::Approx(0.14828).epsilon(1e-3));
  CHECK(noise.hosts[0].metrics.at("median_ttft_ms").degrees_of_freedom == 3);
  CHECK(files.compare("old.json new.json").code == 0);
  CHECK(files.compare("old.json new.json").out.find("known noise") != std::string::npos);
  files.compare("--noise" + names);
  CHECK(report::read_noise_file(files.path("results/noise.json")).hosts.size() == 1);
}

TEST_CASE("compare: acknowledged regressions") {
  const Files files;
  std::ofstream(files.path("accept.json")) << R"({"accepted": [ // the new sampler
    {"metric": "median_ttft_ms", "reason": "sampler", "expires": "2999-12-31", "up_to": 0.5},
    {"metric": "median_itl_ms", "reason": "sampler", "expires": "2999-12-31"},
    {"metric": "output_throughput", "reason": "sampler", "expires": "2999-12-31"},
    {"metric": "decode_throughput", "reason": "sampler", "expires": "2999-12-31"}]})";
  const auto accepted = files.compare("old.json new.json --accept accept.json");
  CHECK(accepted.code == 0);
  CHECK(accepted.out.find("Accepted regressions") != std::string::npos);
}
