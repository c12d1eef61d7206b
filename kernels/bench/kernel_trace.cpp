// Where the time of a run goes, by kernel, from CUPTI's records, on any program that uses CUDA:
//   CUDA_INJECTION64_PATH=$PWD/build/cuda/kernels/libkernel_trace.so qwenbench run ...
// At exit it writes to stderr, for each device, apart for kernels inside and outside of CUDA graphs: launches, time,
// mean, and how long the device was idle in front of them. A gap within a graph is a launch, in front of a graph the
// host. Recording takes time of its own, most of it between kernels: use it to see shares, not to report speed.
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Launch {
  std::uint64_t begin, end;  // ns
  unsigned device, graph, correlation;
  const char* name;
};

std::mutex guard;
std::vector<Launch>& launches() {
  static auto* all = new std::vector<Launch>;  // outlives every other static
  return *all;
}

constexpr std::size_t kBufferBytes = 8 << 20;

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* max_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *max_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  const std::lock_guard lock(guard);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    launches().push_back({kernel->start, kernel->end, kernel->deviceId, kernel->graphId, kernel->correlationId,
                          kernel->name});  // CUPTI keeps names while the module is loaded
  }
  std::free(buffer);
}

/// Without the parameters, and without namespaces of ours.
std::string readable(const char* name) {
  int status = 0;
  char* whole = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string text = status == 0 ? whole : name;
  std::free(whole);
  for (const char* noise : {"void ", "qwenbench::kernels::", "(anonymous namespace)::", "qwenbench::"})
    for (std::size_t at; (at = text.find(noise)) != std::string::npos;) text.erase(at, std::string(noise).size());
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '<') ++depth;
    if (text[i] == '>') --depth;
    if (text[i] == '(' && depth == 0) text.resize(i);
  }
  return text.substr(0, 90);
}

struct Total {
  std::size_t count = 0;
  double busy_ms = 0, idle_ms = 0;
};

void print(unsigned device, bool in_graphs) {
  std::map<std::string, Total> totals;
  std::map<const char*, std::string> names;
  Total all, first_of_graph;
  std::uint64_t busy_until = 0;
  unsigned graph_launch = 0;
  for (const Launch& launch : launches()) {
    if (launch.device != device) continue;
    const bool inside = launch.graph != 0;
    if (inside == in_graphs) {
      auto [name, is_new] = names.try_emplace(launch.name);
      if (is_new) name->second = readable(launch.name);
      const double busy =
          1e-6 * static_cast<double>(launch.end - std::max(launch.begin, std::min(busy_until, launch.end)));
      const double idle =
          busy_until > 0 && launch.begin > busy_until ? 1e-6 * static_cast<double>(launch.begin - busy_until) : 0;
      const bool starts = inside && launch.correlation != graph_launch;
      for (Total* total : {&totals[name->second], &all}) {
        ++total->count;
        total->busy_ms += busy;
        if (!starts) total->idle_ms += idle;
      }
      if (starts) ++first_of_graph.count, first_of_graph.idle_ms += idle;
    }
    if (inside) graph_launch = launch.correlation;
    busy_until = std::max(busy_until, launch.end);
  }
  if (all.count == 0) return;
  std::vector<std::pair<std::string, Total>> sorted(totals.begin(), totals.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.busy_ms > b.second.busy_ms; });
  std::fprintf(stderr, "\ndevice %u, %s CUDA graphs: %.1f ms busy, %.1f ms idle in front of kernels", device,
               in_graphs ? "inside" : "outside of", all.busy_ms, all.idle_ms);
  if (in_graphs)
    std::fprintf(stderr, "; %zu graph launches, %.1f us idle before each", first_of_graph.count,
                 1e3 * first_of_graph.idle_ms / static_cast<double>(first_of_graph.count));
  std::fprintf(stderr, "\n%9s %10s %9s %9s  kernel\n", "launches", "busy ms", "us each", "us idle");
  std::size_t shown = 0;
  for (const auto& [name, total] : sorted) {
    if (++shown > 24) break;
    const auto count = static_cast<double>(total.count);
    std::fprintf(stderr, "%9zu %10.2f %9.2f %9.2f  %s\n", total.count, total.busy_ms, 1e3 * total.busy_ms / count,
                 1e3 * total.idle_ms / count, name.c_str());
  }
}

void finish() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(guard);
  std::sort(launches().begin(), launches().end(), [](const Launch& a, const Launch& b) { return a.begin < b.begin; });
  unsigned devices = 0;
  for (const Launch& launch : launches()) devices = std::max(devices, launch.device + 1);
  for (unsigned device = 0; device < devices; ++device)
    for (const bool in_graphs : {true, false}) print(device, in_graphs);
}

}  // namespace

/// What the driver calls when it loads the library.
extern "C" int InitializeInjection() {
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS) {
    std::fprintf(stderr, "kernel_trace: CUPTI refuses to record kernels (is another profiler running?)\n");
    return 0;
  }
  std::atexit(finish);
  return 1;
}
