// What a user reads, pinned. After an intended change: QWENBENCH_UPDATE_GOLDEN=1 ctest -R tools_test
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tools/process.h"

using qwenbench::test::run_process;

namespace {

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = "tools/golden/" + name;
  if (std::getenv("QWENBENCH_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
  std::ostringstream golden;
  golden << std::ifstream(path).rdbuf();
  CHECK(text == golden.str());
}

struct Case {
  const char* arguments;
  int code;
  const char* err;
};

}  // namespace

TEST_CASE("--help is pinned") {
  const auto top = run_process("qwenbench --help");
  CHECK(top.code == 0);
  CHECK(top.err.empty());
  check_golden("help.txt", top.out);
  const auto run = run_process("qwenbench run --help");
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  check_golden("run-help.txt", run.out);
  const auto calibrate = run_process("qwenbench calibrate-kv --help");
  CHECK(calibrate.code == 0);
  CHECK(calibrate.err.empty());
  check_golden("calibrate-kv-help.txt", calibrate.out);
}

TEST_CASE("--version") {
  const auto version = run_process("qwenbench --version");
  CHECK(version.code == 0);
  CHECK(version.out == "qwenbench 0.1.0\n");
}

TEST_CASE("bad usage: exit 2 and one line on stderr") {
  const Case cases[] = {
      {"qwenbench", 2, "qwenbench: error: which subcommand? (see qwenbench --help)\n"},
      {"qwenbench rum", 2, "qwenbench: error: no subcommand rum; did you mean run? (see qwenbench --help)\n"},
      {"qwenbench run", 2,
       "qwenbench: error: nothing to run: give --profile NAME or --model PATH (see qwenbench run --help)\n"},
      {"qwenbench run --profile tiny-vl --max-num-seq 4", 2, nullptr},
      {"qwenbench run --profile", 2, nullptr},
      {"qwenbench run --profile tiny-vl --assume-devices 2x24GiB,sm_89", 2, nullptr},
      {"qwenbench run --profile tiny-vl --set engine.max_num_seq=4", 2,
       "qwenbench: error: --set engine.max_num_seq=4: unknown key engine.max_num_seq; did you mean "
       "engine.max_num_seqs?\n"},
      {"qwenbench run --profile tiny-vl --trials 0", 2,
       "qwenbench: error: --set workload.trials=0: workload.trials must be an integer from 1 to 10000, not 0\n"},
  };
  for (const auto& [arguments, code, err] : cases) {
    CAPTURE(arguments);
    const auto result = run_process(arguments);
    CHECK(result.code == code);
    CHECK(result.out.empty());
    if (err != nullptr) CHECK(result.err == err);
    CHECK(result.err.starts_with("qwenbench: error: "));
    CHECK(result.err.find('\n') == result.err.size() - 1);
  }
}

TEST_CASE("--dry-run: the plan for hardware that is not here is pinned") {
  const auto plan = run_process(
      "HF_HUB_CACHE=/nonexistent qwenbench run --profile medium-vl --dry-run --assume-devices 2x24GiB,sm_89");
  CHECK(plan.code == 0);
  CHECK(plan.err.empty());
  check_golden("dry-run-medium-vl.txt", plan.out);
}

TEST_CASE("--dry-run: what does not fit is refused after the plan was shown") {
  const auto plan = run_process(
      "HF_HUB_CACHE=/nonexistent qwenbench run --profile medium-vl --dry-run --assume-devices 2x12GiB,sm_89");
  CHECK(plan.code == 5);
  CHECK(plan.out.find("memory plan per rank") != std::string::npos);
  CHECK(plan.err.find("cannot hold one sequence of engine.max_model_len 8192") != std::string::npos);
  CHECK(run_process("qwenbench run --profile medium-vl --dry-run --assume-devices 2x24GiB,sm_75").code == 5);
  CHECK(run_process("qwenbench run --profile medium-vl --dry-run --assume-devices 2x24GB").code == 2);
  CHECK(run_process("qwenbench run --profile medium-vl --dry-run --assume-devices 24GiB,sm_89").code == 5);
}

TEST_CASE("a model that is not here: the command that would fetch it") {
  const auto missing = run_process("HF_HUB_CACHE=/nonexistent qwenbench run --profile medium-vl -o /tmp/never.json");
  CHECK(missing.code == 2);
  CHECK(missing.err.find("hf download cpatonn/Qwen3-VL-32B-Thinking-AWQ-4bit") != std::string::npos);
}
