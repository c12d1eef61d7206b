#include "dispatch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ostream>
#include <utility>

#include "base/error.h"
#include "command_main.h"

namespace qwenbench::tools {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "qwenbench-";

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kSummaries{{
    {"calibrate-kv", "measure KV scales, and say which layers need one"},
    {"compare", "compare result files; the exit code says whether something regressed"},
    {"run", "measure latency, throughput and quality of KV-cache variants, and judge them"},
    {"sweep", "a grid of settings: champion, Pareto front, what each setting brings"},
}};

std::string summary_of(const std::string& name) {
  for (const auto& [known, summary] : kSummaries) {
    if (known == name) return std::string(summary);
  }
  return "";
}

void print_help(const std::vector<std::string>& subcommands, std::ostream& out) {
  out << "Benchmark of Qwen3-VL inference with an FP8 KV cache: speed, quality, and a verdict.\n"
         "Usage: qwenbench SUBCOMMAND [OPTIONS]\n\nSubcommands:\n";
  for (const auto& name : subcommands) out << fmt::format("  {:<16}{}\n", name, summary_of(name));
  out << "\nOptions:\n"
         "  -h,--help       Print this help message and exit\n"
         "  --version       Print the version and exit\n"
         "\n`qwenbench SUBCOMMAND --help` describes a subcommand.\n";
}

[[noreturn]] void start(const fs::path& program, const std::vector<std::string>& args) {
  std::vector<std::string> texts{program.string()};
  texts.insert(texts.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (auto& text : texts) argv.push_back(text.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  throw InputError(fmt::format("{} cannot be started: {}", program.string(), std::strerror(errno)));
}

}  // namespace

std::vector<std::string> find_subcommands(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && ::access(entry.path().c_str(), X_OK) == 0)
      names.push_back(name.substr(kPrefix.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

int dispatch(const fs::path& folder, const std::vector<std::string>& args, std::ostream& out) {
  const auto subcommands = find_subcommands(folder);
  if (args.empty()) throw InputError("which subcommand? (see qwenbench --help)");
  const std::string& name = args.front();
  if (name == "-h" || name == "--help" || name == "help") {
    print_help(subcommands, out);
    return 0;
  }
  if (name == "--version") {
    out << "qwenbench " << version() << "\n";
    return 0;
  }
  if (std::find(subcommands.begin(), subcommands.end(), name) == subcommands.end()) {
    const std::string nearest = nearest_name(name, subcommands);
    throw InputError(fmt::format("no subcommand {}{} (see qwenbench --help)", one_line(name, 60),
                                 nearest.empty() ? std::string() : fmt::format("; did you mean {}?", nearest)));
  }
  start(folder / (std::string(kPrefix) + name), {args.begin() + 1, args.end()});
}

}  // namespace qwenbench::tools
