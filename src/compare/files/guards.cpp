#include "compare/files/guards.h"

#include <fmt/format.h>

namespace qwenbench::compare {
namespace {

using report::Environment;
using report::Result;

std::string text(const std::string& value) { return value; }
std::string text(bool value) { return value ? "yes" : "no"; }
std::string text(std::optional<bool> value) { return value ? text(*value) : "unknown"; }
std::string text(std::optional<double> value) { return value ? fmt::format("{:g}", *value) : "unknown"; }
std::string text(int value) { return fmt::format("{}", value); }
std::string text(std::int64_t value) { return fmt::format("{}", value); }

class Finder {
 public:
  explicit Finder(const std::set<std::string>& expected) : expected_(expected) {}

  template <class T>
  void operator()(const std::string& name, const T& base, const T& other, bool forbids = false) {
    if (expected_.contains(name) && !forbids) return;
    const std::string a = text(base), b = text(other);
    if (a != b) found_.push_back({name, a.empty() ? "none" : a, b.empty() ? "none" : b, forbids});
  }
  void add(const std::string& name, const std::string& base, const std::string& other) {
    found_.push_back({name, base, other, false});
  }
  std::vector<Difference> take() { return std::move(found_); }

 private:
  const std::set<std::string>& expected_;
  std::vector<Difference> found_;
};

std::string gpu_models(const Environment& environment) {
  std::string names;
  for (const report::Device& device : environment.devices) names += (names.empty() ? "" : ", ") + device.name;
  return names;
}

/// Where one of these differs, the numbers answer different questions.
void compare_identity(const Result& a, const Result& b, Finder& find) {
  find("model_fingerprint", a.engine.model_fingerprint.substr(0, 12), b.engine.model_fingerprint.substr(0, 12), true);
  find("weights", a.engine.weights, b.engine.weights, true);
  find("workload.dataset_sha256", a.workload.dataset_sha256.substr(0, 12), b.workload.dataset_sha256.substr(0, 12),
       true);
  find("workload.requests_sha256", a.workload.requests_sha256.substr(0, 12), b.workload.requests_sha256.substr(0, 12),
       true);
  find("workload.images_sha256", a.workload.images_sha256.substr(0, 12), b.workload.images_sha256.substr(0, 12), true);
  find("environment.devices", gpu_models(a.environment), gpu_models(b.environment), true);
  find("device", a.engine.device, b.engine.device, true);
}

void compare_devices(const Environment& a, const Environment& b, Finder& find) {
  for (std::size_t i = 0; i < std::min(a.devices.size(), b.devices.size()); ++i) {
    const report::Device &x = a.devices[i], &y = b.devices[i];
    const std::string name = fmt::format("environment.devices[{}].", i);
    find(name + "uuid", x.uuid, y.uuid);
    find(name + "global_memory_size", x.global_memory_size, y.global_memory_size);
    find(name + "power_limit_w", x.power_limit_w, y.power_limit_w);
    find(name + "sm_clock_mhz", x.sm_clock_mhz, y.sm_clock_mhz);
  }
}

void compare_environments(const Environment& a, const Environment& b, Finder& find) {
  find("environment.build_commit", a.build_commit.substr(0, 12), b.build_commit.substr(0, 12));
  find("environment.compiler", a.compiler, b.compiler);
  find("environment.build_type", a.build_type, b.build_type);
  find("environment.cpu_info", a.cpu_info, b.cpu_info);
  find("environment.cpu_cores", a.cpu_cores, b.cpu_cores);
  find("environment.memory_size", a.memory_size >> 30, b.memory_size >> 30);
  find("environment.os", a.os, b.os);
  find("environment.driver_version", a.driver_version, b.driver_version);
  find("environment.cuda_version", a.cuda_version, b.cuda_version);
  find("environment.nccl_version", a.nccl_version, b.nccl_version);
  find("environment.topology", a.topology, b.topology);
  find("environment.p2p", a.p2p, b.p2p);
  find("environment.pin_memory", a.pin_memory, b.pin_memory);
  find("environment.wsl", a.wsl, b.wsl);
  compare_devices(a, b, find);
  const bool dirty_a = a.git_is_dirty.value_or(false), dirty_b = b.git_is_dirty.value_or(false);
  if (dirty_a || dirty_b) {  // two dirty builds of one commit may be two programs
    find.add("environment.git_is_dirty", dirty_a ? "dirty build" : "clean", dirty_b ? "dirty build" : "clean");
  }
}

/// Fields of the profile that say nothing about what was measured.
bool is_label(const std::string& path) {
  return path == "name" || path == "slo" || path.starts_with("quality.ceiling") ||
         path.starts_with("quality.minimum_effect");
}

void compare_profiles(const Run& a, const Run& b, Finder& find) {
  static const std::set<std::string> kOwn{"file", "side", "variant", "device", "weights", "gpu", "cpu", "build_commit"};
  const auto value = [](const Run& run, const std::string& key) {
    const auto found = run.keys.find(key);
    return found == run.keys.end() ? std::string() : found->second;
  };
  std::set<std::string> names;
  for (const Run* run : {&a, &b}) {
    for (const auto& [name, text] : run->keys) names.insert(name);
  }
  for (const std::string& name : names) {
    if (!kOwn.contains(name) && !is_label(name)) find(name, value(a, name), value(b, name));
  }
}

}  // namespace

std::vector<Difference> find_differences(const Run& base, const Run& other, const std::set<std::string>& expected) {
  Finder find(expected);
  const Result &a = *base.result, &b = *other.result;
  if (!same_run(base, other)) {
    compare_identity(a, b, find);
    compare_environments(a.environment, b.environment, find);
    compare_profiles(base, other, find);
    find("engine.tp_size", a.engine.tp_size, b.engine.tp_size);
    find("was_cancelled", a.was_cancelled, b.was_cancelled);
  } else if (base.variant->name != other.variant->name) {
    find("kv_cache_dtype", base.variant->kv_cache_dtype, other.variant->kv_cache_dtype);
  }
  find("kv_scales.sha256", base.variant->kv_scales.sha256.substr(0, 12), other.variant->kv_scales.sha256.substr(0, 12));
  find("num_kv_blocks", base.variant->num_kv_blocks, other.variant->num_kv_blocks);
  find("trials", static_cast<std::int64_t>(base.variant->trials.size()),
       static_cast<std::int64_t>(other.variant->trials.size()));
  return find.take();
}

std::string host_of(const Environment& environment) {
  const std::string gpus = gpu_models(environment);
  return gpus.empty() ? environment.cpu_info : fmt::format("{}; {}", environment.cpu_info, gpus);
}

}  // namespace qwenbench::compare
