// `qwenbench sweep` as a user starts it: kill -9 and --resume, shards, crashes, --baseline, bad input.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/atomic_file.h"
#include "report/result_file.h"
#include "tools/process.h"

using namespace qwenbench;
using qwenbench::test::run_process;
namespace fs = std::filesystem;

namespace {

/// Four cells of random weights: a second each.
constexpr const char* kSweep = R"({
  "model": "datasets/models/qwen3-vl-tiny", "load_format": "dummy",
  "engine": {"device": "cpu", "max_model_len": 512, "max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 16,
             "limit_mm_per_prompt": {"image": 2}, "cpu_kv_cache_gib": 0.02, "cpu_threads": 1},
  "variants": {"reference": {"kv_cache_dtype": "bfloat16"}},
  "workload": {"dataset": "random", "input_len": 8, "num_prompts": 2, "output_len": 4, "max_concurrency": 2, "trials": 2,
               "warmup_prompts": 0},
  "quality": {"dataset": ""},
  "axes": {"engine.max_num_seqs": [2, 4], "engine.enable_prefix_caching": [false, true]}, "pareto": ["output_throughput", "median_ttft_ms"]
})";

struct Folder {
  fs::path path = fs::temp_directory_path() / ("qwenbench_sweep_" + std::to_string(::getpid()));
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
    std::ofstream(path / "sweep.json") << kSweep;
  }
  ~Folder() { fs::remove_all(path); }

  test::ProcessResult sweep(const std::string& arguments) const {
    return run_process("env -C " + path.string() + " qwenbench sweep ./sweep.json -q " + arguments);
  }
};

std::size_t finished(const fs::path& folder) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder / "cells", error)) {
    count += entry.path().extension() == ".json" && entry.path().string().find(".failed.") == std::string::npos;
  }
  return count;
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder / "cells")) {
    files[entry.path().filename().string()] = read_file(entry.path());
  }
  return files;
}

/// Starts the sweep without waiting; a process of its own group.
pid_t start(const Folder& folder, const std::string& output) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const char* bin = std::getenv("QWENBENCH_BIN");
  const std::string program = std::string(bin != nullptr ? bin : "") + "/qwenbench-sweep";
  if (::chdir(folder.path.c_str()) != 0) ::_exit(1);
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, 1);
  ::dup2(null, 2);
  ::execl(program.c_str(), program.c_str(), "./sweep.json", "-q", "-o", output.c_str(), "--resume", "--set",
          "workload.trials=40", nullptr);
  ::_exit(127);
}

}  // namespace

TEST_CASE("sweep: kill -9 at any point, then --resume") {
  const Folder folder;
  const fs::path out = folder.path / "out";
  std::map<std::string, std::string> before;
  int killed = 0;
  // Each time it may run a little longer; on a busy machine for as long as no cell has been finished at all.
  for (int kill = 0; (kill < 40 && finished(out) < 4) || (kill < 200 && finished(out) == 0); ++kill) {
    const pid_t pid = start(folder, "out");
    killed += 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + 40 * kill));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (!fs::exists(out / "cells")) continue;
    for (const auto& [name, text] : before) CHECK(read_file(out / "cells" / name) == text);
    before.clear();
    for (const auto& entry : fs::directory_iterator(out / "cells")) {
      if (entry.path().extension() != ".json") continue;  // a temporary file that the kill left
      CHECK_NOTHROW(report::read_result(entry.path()));
      before[entry.path().filename().string()] = read_file(entry.path());
    }
  }
  CHECK(killed >= 2);
  REQUIRE_FALSE(before.empty());
  fs::remove(out / "cells" / before.begin()->first);
  std::ofstream(out / "cells" / (before.begin()->first + ".a1B2c3")) << "half a fi";
  before.erase(before.begin());
  const auto resumed = folder.sweep("-o out --resume --set workload.trials=40");
  CHECK(resumed.code == 0);
  CHECK(finished(out) == 4);
  for (const auto& [name, text] : before) CHECK(read_file(out / "cells" / name) == text);
  CHECK(contents(out).size() == 4);  // no temporary file is left
  CHECK(resumed.out.find("Champion") != std::string::npos);
  CHECK(read_file(out / "summary.csv").starts_with("cell,"));
  // All there: nothing runs again, and without --resume nothing is overwritten.
  const auto files = contents(out);
  CHECK(folder.sweep("-o out --resume --set workload.trials=40").code == 0);
  CHECK(contents(out) == files);
  const auto again = folder.sweep("-o out --set workload.trials=40");
  CHECK(again.code == 2);
  CHECK(again.err.find("--resume") != std::string::npos);
  CHECK(folder.sweep("-o out --resume --set workload.seed=2").code == 2);
}

TEST_CASE("sweep: shares add up to the whole") {
  const Folder folder;
  CHECK(folder.sweep("-o a --shard 1/3").code == 0);
  CHECK(finished(folder.path / "a") == 2);
  CHECK(folder.sweep("-o b --shard 2/3").code == 0);
  CHECK(folder.sweep("-o a --shard 3/3").code == 0);  // several shares in one folder, as on a shared file system
  CHECK(finished(folder.path / "a") == 3);
  const auto missing = folder.sweep("-o whole --merge a");
  CHECK(missing.code != 0);
  CHECK(missing.out.find("not run yet") != std::string::npos);
  const auto merged = folder.sweep("-o whole --merge a b");
  CHECK(merged.code == 0);
  CHECK(finished(folder.path / "whole") == 4);
  CHECK(folder.sweep("-o whole --merge").code == 0);
  CHECK(folder.sweep("-o other --merge a --set workload.seed=2").code == 2);
}

TEST_CASE("sweep: a cell that cannot run costs one cell, and the exit code") {
  const Folder folder;
  // No KV block fits: a device failure of two cells.
  std::string text = kSweep;
  const std::string axis = "\"engine.enable_prefix_caching\": [false, true]";
  text.replace(text.find(axis), axis.size(), "\"engine.cpu_kv_cache_gib\": [0.02, 0.0000001]");
  std::ofstream(folder.path / "sweep.json") << text;
  const auto result = folder.sweep("-o out");
  CHECK(result.code != 0);
  CHECK(finished(folder.path / "out") == 2);
  CHECK(result.out.find("Cells without a result") != std::string::npos);
  CHECK(result.out.find("Champion") != std::string::npos);
  CHECK(read_file(folder.path / "out" / "summary.csv").find(",failed,") != std::string::npos);
  CHECK(folder.sweep("--dry-run").code == 5);
}

TEST_CASE("sweep: --dry-run, --baseline, the constraints' exit code") {
  const Folder folder;
  const auto plan = folder.sweep("--dry-run");
  CHECK(plan.code == 0);
  CHECK(plan.out.find("4 cells, about ") != std::string::npos);
  CHECK(plan.out.find("max_num_seqs=4 enable_prefix_caching=true") != std::string::npos);
  CHECK(folder.sweep("--dry-run --shard 2/4").out.find("1 cells") != std::string::npos);
  CHECK_FALSE(fs::exists(folder.path / "results"));
  REQUIRE(folder.sweep("-o night1").code == 0);
  // Its own twin: not slower. A threshold that no noise reaches keeps the test from asserting on timings.
  const auto compared = folder.sweep("-o night1 --merge --baseline night1 --threshold timing=1000%");
  CHECK(compared.code == 0);
  CHECK(compared.out.find("Against night1") != std::string::npos);
  CHECK(compared.out.find("no regression") != std::string::npos);
  // Three times as slow in every trial, in all cells: Holm over all of them still finds it.
  fs::copy(folder.path / "night1", folder.path / "night2", fs::copy_options::recursive);
  for (const auto& entry : fs::directory_iterator(folder.path / "night2" / "cells")) {
    report::Result result = report::read_result(entry.path());
    result.benchmark_id += "x";
    for (report::VariantResult& variant : result.variants) {
      for (report::Trial& trial : variant.trials)
        if (trial.summary.ttft.median) *trial.summary.ttft.median /= 3;
    }
    report::write_result(entry.path(), result);
  }
  const auto slower = folder.sweep("-o night1 --merge --baseline night2 --threshold timing=50%");
  CHECK(slower.code == 1);
  CHECK(folder.sweep("-o night1 --merge --baseline nowhere").code == 2);
  CHECK(folder.sweep("-o night1 --merge --baseline .").code == 2);
}

TEST_CASE("sweep: bad usage is one line") {
  const Folder folder;
  std::ofstream(folder.path / "plain.json") << R"({"model": "m"})";
  for (const std::string arguments :
       {"--shard 0/2", "--shard 3/2", "--shard x", "--set engine.max_num_seqs=0", "--set nonsense=1",
        "-o /proc/nothing", "--baseline", "--assume-devices 2x --dry-run", "--threshold x --baseline . --merge"}) {
    CAPTURE(arguments);
    const auto result = folder.sweep(arguments);
    CHECK(result.code == 2);
    CHECK(result.err.starts_with("qwenbench: error: "));
    CHECK(result.err.find('\n') == result.err.size() - 1);
  }
  CHECK(run_process("qwenbench sweep").code == 2);
  CHECK(run_process("qwenbench sweep no-such-sweep").code == 2);
  CHECK(run_process("qwenbench sweep tiny-vl").err.find("has no axes") != std::string::npos);
}
