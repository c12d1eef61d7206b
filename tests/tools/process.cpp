#include "tools/process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace qwenbench::test {
namespace {

std::string take(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::filesystem::remove(path);
  return text.str();
}

}  // namespace

ProcessResult run_process(const std::string& arguments) {
  const auto base = std::filesystem::temp_directory_path() / ("qwenbench-tools-" + std::to_string(::getpid()));
  const std::string out = base.string() + ".out", err = base.string() + ".err";
  const char* bin = std::getenv("QWENBENCH_BIN");
  const std::string path = bin != nullptr ? "PATH=" + std::string(bin) + ":$PATH " : "";
  const int status = std::system((path + arguments + " >" + out + " 2>" + err + " </dev/null").c_str());
  ProcessResult result;
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = take(out);
  result.err = take(err);
  return result;
}

}  // namespace qwenbench::test
