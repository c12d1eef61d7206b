#include "measure/environment.h"

#include <build_info.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#include "backend/devices.h"
#include "base/thread_pool.h"
#include "base/wsl.h"

namespace qwenbench::measure {
namespace {

/// "" where the file is not there. /proc files have no size: read to the end, within reason.
std::string read_text(const char* path) {
  constexpr std::size_t kMost = 4u << 20;
  std::ifstream in(path, std::ios::binary);
  std::string text;
  char buffer[4096];
  while (in && text.size() < kMost) {
    in.read(buffer, sizeof buffer);
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
  }
  return text;
}

std::string_view trimmed(std::string_view text) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

/// What the CPU can do for this program's kernels, from the flags line of /proc/cpuinfo.
std::string simd_level(const std::set<std::string>& flags) {
  if (flags.contains("avx512f") && flags.contains("avx512bw")) {
    return flags.contains("avx512_bf16") ? "AVX-512 with BF16" : "AVX-512";
  }
  if (flags.contains("avx2") && flags.contains("fma")) return "AVX2";
  if (flags.contains("sse2")) return "SSE2";
  if (flags.contains("sve")) return "SVE";
  if (flags.contains("asimd")) return "NEON";
  return "";
}

std::string plural(std::size_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace

std::string describe_cpu(std::string_view cpuinfo) {
  std::string model;
  std::set<std::string> sockets, flags;
  std::size_t processors = 0;
  std::istringstream lines{std::string(cpuinfo)};
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view key = trimmed(std::string_view(line).substr(0, colon));
    const std::string_view value = trimmed(std::string_view(line).substr(colon + 1));
    if (key == "processor") ++processors;
    if (key == "model name" && model.empty()) model = value;
    if (key == "physical id") sockets.emplace(value);
    if ((key == "flags" || key == "Features") && flags.empty()) {
      std::istringstream words{std::string(value)};
      for (std::string word; words >> word;) flags.insert(word);
    }
  }
  if (model.empty()) return "";
  std::string text = model;
  if (!sockets.empty()) text += ", " + plural(sockets.size(), "socket");
  text += ", " + plural(processors, "thread");
  if (const std::string simd = simd_level(flags); !simd.empty()) text += ", " + simd;
  return text;
}

report::Environment host_environment() {
  report::Environment result;
  result.build_commit = kBuildCommit;
  result.git_is_dirty = kGitIsDirty;
  result.compiler = QWENBENCH_COMPILER;
  result.build_type = QWENBENCH_BUILD_TYPE;
  result.cpu_info = describe_cpu(read_text("/proc/cpuinfo"));
  result.cpu_cores = available_cores();
  const long pages = ::sysconf(_SC_PHYS_PAGES), page_size = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_size > 0) result.memory_size = static_cast<std::int64_t>(pages) * page_size;
  utsname name{};
  if (::uname(&name) == 0) result.os = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  result.wsl = running_under_wsl();
  const backend::GpuSystem system = backend::describe_gpus();
  for (const backend::GpuInfo& gpu : system.gpus) {
    result.devices.push_back({gpu.name, gpu.uuid, fmt::format("{}.{}", gpu.sm_version / 10, gpu.sm_version % 10),
                              gpu.memory_bytes, gpu.power_limit_w, gpu.sm_clock_mhz});
  }
  result.driver_version = system.driver_version;
  result.cuda_version = system.cuda_version;
  result.nccl_version = system.nccl_version;
  result.topology = system.topology;
  result.p2p = system.p2p;
  return result;
}

}  // namespace qwenbench::measure
