#include "dry_run.h"

#include <fmt/format.h>

#include <ostream>

#include "base/error.h"
#include "engine/memory_plan.h"
#include "profile/warnings.h"
#include "workload/locate_model.h"
#include "workload/workload.h"

namespace qwenbench::tools {

std::string size_text(std::int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes < 0) return fmt::format("-{}", size_text(-bytes));
  if (value >= 0x1p30) return fmt::format("{:.2f} GiB", value / 0x1p30);
  if (value >= 0x1p20) return fmt::format("{:.1f} MiB", value / 0x1p20);
  return fmt::format("{:.1f} KiB", value / 0x1p10);
}

namespace {

using engine::DeviceMemory;
using engine::KvCapacity;
using engine::MemoryPlan;

void check_compute_capability(const profile::Profile& profile, const DeviceMemory& devices) {
  if (!devices.is_gpu) return;
  if (devices.sm_version < 80)
    throw DeviceError(fmt::format("sm_{} cannot compute in bf16: sm_80 or newer is needed", devices.sm_version));
  if (devices.sm_version < 89 && profile.engine.attention_dtype == "fp8") {
    throw DeviceError(fmt::format("engine.attention_dtype fp8 needs sm_89 or newer, not sm_{}", devices.sm_version));
  }
}

void print_plan(const MemoryPlan& plan, const DeviceMemory& devices, std::ostream& out) {
  out << fmt::format("memory plan per rank ({} rank{}, {})\n", plan.ranks, plan.ranks == 1 ? "" : "s", devices.name);
  const auto line = [&](const char* name, std::int64_t bytes, const std::string& note) {
    out << fmt::format("  {:<14}{:>12}{}\n", name, size_text(bytes), note.empty() ? "" : "  " + note);
  };
  line("usable", plan.usable,
       plan.is_gpu ? "device memory x engine.gpu_memory_utilization" : "this machine's memory / ranks");
  line("weights", plan.weights, "");
  line("activations", plan.activations, "upper bound: every buffer of the largest step and picture at once");
  if (plan.scratch > 0)
    line("scratch", plan.scratch, "the largest quantized matrix in 16 bit, for steps of many tokens");
  if (plan.is_gpu) line("runtime", plan.runtime, "allowance for context, communication and graphs");
  line("KV cache", plan.kv, plan.is_gpu ? "what is left" : "engine.cpu_kv_cache_gib");
}

void print_capacity(const MemoryPlan& plan, const KvCapacity& capacity, std::ostream& out) {
  out << fmt::format("  {:<10}{:>10} blocks of {} tokens ({} each), {} tokens: {} sequence{} of {}\n",
                     profile::name_of(capacity.dtype), capacity.num_blocks, plan.block_size,
                     size_text(capacity.block_bytes), capacity.tokens, capacity.full_sequences,
                     capacity.full_sequences == 1 ? "" : "s", plan.max_model_len);
}

/// What the same model's official FP8 checkpoint would leave for the cache: the alternative to 4 bit.
void print_fp8_alternative(const profile::Profile& profile, const model::ModelConfig& config,
                           const DeviceMemory& devices, std::ostream& out) {
  using Format = model::QuantizationConfig::Format;
  if (config.quantization.format != Format::kPackQuantized && config.quantization.format != Format::kAwqGemm) return;
  const auto fp8_config = engine::as_fp8_checkpoint(config);
  const MemoryPlan plan = engine::plan_memory(fp8_config, profile.engine, devices);
  out << fmt::format("with an FP8 block checkpoint of this model instead: weights {}, KV cache {}\n",
                     size_text(plan.weights), size_text(plan.kv));
  for (const auto& capacity : plan.capacities) print_capacity(plan, capacity, out);
}

void print_warnings(const profile::Profile& profile, const workload::ModelLocation& location, bool on_gpu,
                    std::ostream& out) {
  auto warnings = profile::profile_warnings(profile, on_gpu);
  if (location.config_only) {
    warnings.push_back({"MODEL_NOT_HERE", fmt::format("{} is not on this machine; planned from the config in {}",
                                                      profile.model, profile.model_config)});
  }
  if (warnings.empty()) return;
  out << "warnings\n";
  for (const auto& warning : warnings) out << fmt::format("  {}: {}\n", warning.code, warning.message);
}

}  // namespace

DeviceMemory devices_of(const profile::Profile& profile, const std::string& assume_devices) {
  return assume_devices.empty() ? engine::available_devices(profile.engine) : engine::parse_devices(assume_devices);
}

int dry_run(const profile::Profile& profile, const std::string& assume_devices, std::ostream& out) {
  const DeviceMemory devices = devices_of(profile, assume_devices);
  check_compute_capability(profile, devices);
  const auto location = workload::locate_model(profile, true);
  const model::ModelConfig config = model::read_model_config(location.directory);
  workload::effective_max_model_len(profile.engine, config);
  const MemoryPlan plan = engine::plan_memory(config, profile.engine, devices);

  out << "profile\n" << profile::to_json(profile) << "\n\n";
  out << fmt::format("model {} ({}, {} layers, {} KV heads)\n", profile.model, config.quantization.describe(),
                     config.text.num_layers, config.text.num_kv_heads);
  print_plan(plan, devices, out);
  out << "KV cache holds\n";
  for (const auto& capacity : plan.capacities) print_capacity(plan, capacity, out);
  print_fp8_alternative(profile, config, devices, out);
  print_warnings(profile, location, devices.is_gpu, out);
  for (const auto& variant : profile.variants) {
    engine::require_fits(plan, engine::kv_capacity(config, plan, variant.kv_cache_dtype));
  }
  return 0;
}

}  // namespace qwenbench::tools
