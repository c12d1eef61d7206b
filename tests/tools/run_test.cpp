// `qwenbench run` as a user starts it, on the embedded model, as small as it gets.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "tools/process.h"

using qwenbench::test::run_process;

namespace {

const std::string kSmall =
    "qwenbench run --profile tiny-vl --num-prompts 2 --max-tokens 2 --trials 1 --set workload.warmup_prompts=0 "
    "--set quality.num_samples=4 --set calibration.num_samples=2 ";

}  // namespace

TEST_CASE("run: a table on stdout, a result file, exit 0; nothing on stderr with --quiet but the file's name") {
  const auto file = std::filesystem::temp_directory_path() / ("qwenbench-run-" + std::to_string(::getpid()) + ".json");
  const auto document = std::filesystem::path(file).replace_extension(".md");
  const auto run = run_process(kSmall + "-q -o " + file.string() + " --report " + document.string());
  CHECK(run.code == 0);
  CHECK(std::filesystem::file_size(document) > 1000);
  std::filesystem::remove(document);
  CHECK(run.out.find("calibrated") != std::string::npos);
  CHECK(run.out.find("verdict") != std::string::npos);
  CHECK(run.err.find("error") == std::string::npos);
  CHECK(std::filesystem::file_size(file) > 1000);
  std::filesystem::remove(file);
}

TEST_CASE("run: an output that cannot be written is refused before any work") {
  const auto run = run_process(kSmall + "-o /proc/nothing/result.json");
  CHECK(run.code == 2);
  CHECK(run.out.empty());
  CHECK(run.err.starts_with("qwenbench: error: "));
}
