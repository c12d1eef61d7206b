#include "measure/findings.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "backend/backend.h"
#include "engine/memory_plan.h"
#include "profile/warnings.h"

namespace qwenbench::measure {
namespace {

using report::Quality;
using report::VariantResult;
using report::Warning;

std::optional<double> accuracy_of(const Quality& quality) {
  if (quality.tasks.empty()) return std::nullopt;
  return quality.tasks.back().accuracy;  // "all", or the only one
}

std::optional<std::string> impact_of(const VariantResult& variant, const VariantResult& reference) {
  if (!variant.quality || !variant.quality->kld.mean) return std::nullopt;
  const Quality& quality = *variant.quality;
  std::string text = fmt::format("KL divergence from {} {:.3g}", quality.reference, *quality.kld.mean);
  if (quality.kld.mean_stderr) text += fmt::format(" +- {:.1g}", *quality.kld.mean_stderr);
  text += " nats a token";
  if (quality.same_top1) text += fmt::format(", same top-1 token {:.2f} %", *quality.same_top1 * 100);
  const auto accuracy = accuracy_of(quality);
  if (accuracy) text += fmt::format(", task accuracy {:.1f} %", *accuracy * 100);
  if (accuracy && reference.quality && accuracy_of(*reference.quality)) {
    text += fmt::format(" ({}: {:.1f} %)", reference.name, *accuracy_of(*reference.quality) * 100);
  }
  return text;
}

const AttentionImpact* find_impact(const std::vector<AttentionImpact>& impacts, const std::string& variant) {
  const auto found =
      std::find_if(impacts.begin(), impacts.end(), [&](const auto& impact) { return impact.variant == variant; });
  return found == impacts.end() ? nullptr : &*found;
}

/// "FP8 attention would change KL divergence ... from 0.005 to 0.007 nats a token (16 requests)".
std::string attention_text(const AttentionImpact& impact, bool in_use, const std::string& q_scales) {
  return fmt::format("FP8 attention {} KL divergence from a BF16 cache from {:.3g} to {} nats a token ({} requests)",
                     in_use ? "changes" : "would change", impact.auto_kld, q_scales, impact.requests);
}

/// vLLM says that a q_scale which the checkpoint lacks is set to k_scale; it ends as 1.0.
void warn_of_q_scale(const profile::Profile& profile, const PreparedVariant& variant,
                     const std::vector<AttentionImpact>& impacts, std::vector<Warning>& warnings) {
  const auto& layers = variant.scales->layers;
  if (layers.empty() || layers.front().q) return;
  const bool in_use = profile.engine.attention_dtype == "fp8";
  Warning& added = warnings.emplace_back(
      Warning{"Q_SCALE_FROM_K",
              fmt::format("variant {} brings scales of K and V but none of Q: a server may say that q_scale is set to "
                          "k_scale, and uses 1.0; only attention in FP8 reads it{}",
                          variant.variant.name, in_use ? "" : ", and engine.attention_dtype is auto"),
              std::nullopt});
  const AttentionImpact* impact = find_impact(impacts, variant.variant.name);
  if (impact == nullptr || !impact->from_k_kld) return;
  added.measured_impact = attention_text(
      *impact, in_use, fmt::format("{:.3g} with q_scale 1, {:.3g} with k_scale", impact->fp8_kld, *impact->from_k_kld));
}

/// What the profile alone lets one warn of, now with what it cost.
void warn_of_scales(profile::Profile profile, const PreparedVariant& variant, const VariantResult& result,
                    const VariantResult& reference, const std::vector<AttentionImpact>& impacts,
                    std::vector<Warning>& warnings) {
  profile.variants = {variant.variant};
  for (const profile::Warning& warning : profile::profile_warnings(profile, false)) {
    Warning& added = warnings.emplace_back(Warning{warning.code, warning.message, std::nullopt});
    if (warning.code == "KV_SCALE_UNIT") added.measured_impact = impact_of(result, reference);
    const AttentionImpact* impact = find_impact(impacts, variant.variant.name);
    if (warning.code == "Q_PROB_SCALE_UNIT" && impact != nullptr) {
      const bool in_use = profile.engine.attention_dtype == "fp8";
      added.measured_impact = attention_text(*impact, in_use, fmt::format("{:.3g}", impact->fp8_kld));
    }
  }
  if (!variant.fp8()) return;
  warn_of_q_scale(profile, variant, impacts, warnings);
  if (!variant.scales->unchecked_model.empty()) {
    warnings.push_back({"KV_SCALE_MODEL_UNCHECKED",
                        fmt::format("variant {}: {}", result.name, variant.scales->unchecked_model), std::nullopt});
  }
  for (const std::string& sentence : variant.scales->warnings) {
    warnings.push_back({"KV_SCALE_ZERO_AMAX", fmt::format("variant {}: {}", result.name, sentence), std::nullopt});
  }
}

void warn_of_pageable_memory(bool wsl, const std::vector<report::RankMemory>& ranks,
                             const MeasureCopies& measure_copies, std::vector<Warning>& warnings) {
  Warning& added = warnings.emplace_back(Warning{
      "PIN_MEMORY_OFF",
      fmt::format("weights are loaded through pageable memory{}: copies between host and device are slower and block",
                  wsl ? " (the default under WSL; engine.pin_memory \"on\" overrides it)" : ""),
      std::nullopt});
  const auto copies = measure_copies();
  if (!copies) return;
  std::int64_t weights = 0;
  for (const report::RankMemory& rank : ranks) weights += rank.weights;
  const auto bytes = static_cast<double>(weights);
  added.measured_impact = fmt::format(
      "copies to the GPU: {:.1f} GB/s from pinned memory, {:.1f} GB/s from pageable; the {:.2f} GB of weights "
      "of this run take {:.2f} s instead of {:.2f} s",
      copies->pinned * 1e-9, copies->pageable * 1e-9, bytes * 1e-9, bytes / copies->pageable, bytes / copies->pinned);
}

void warn_of_devices(const profile::Profile& profile, const report::Result& result, const MeasureCopies& measure_copies,
                     std::vector<Warning>& warnings) {
  const report::Environment& environment = result.environment;
  if (environment.devices.empty()) return;
  if (result.engine.device == "cuda" && !environment.pin_memory) {
    warn_of_pageable_memory(environment.wsl, result.engine.memory, measure_copies, warnings);
  }
  if (profile.engine.tensor_parallel_size < 2 || environment.p2p.value_or(true)) return;
  Warning& added = warnings.emplace_back(Warning{
      "P2P_UNAVAILABLE",
      fmt::format("not all GPUs have peer access to each other, sums go over {}; nvidia-smi topo -p2p r says between "
                  "which, and an IOMMU or a container's settings may stand in the way",
                  result.engine.all_reduce == "host" ? "main memory" : "NCCL"),
      std::nullopt});
  std::optional<double> most;
  for (const VariantResult& variant : result.variants) {
    if (variant.summary.comm_share) most = std::max(most.value_or(0), *variant.summary.comm_share);
  }
  if (most) {
    added.measured_impact = fmt::format(
        "at most {:.1f} % of the time of a step goes into collectives: peer access can gain no more", *most * 100);
  }
}

void warn_of_noise(const VariantResult& reference, std::vector<Warning>& warnings) {
  if (!reference.quality || reference.quality->reference != reference.name) return;
  const auto& floor = reference.quality->kld.mean;
  if (!floor || *floor == 0) return;
  warnings.push_back({"NOISE_FLOOR",
                      fmt::format("the reference scored twice, with other batches and chunks, differs from itself; "
                                  "differences below that are none"),
                      fmt::format("KL divergence {:.3g} nats a token", *floor)});
}

void warn_of_timing(const VariantResult& variant, std::vector<Warning>& warnings) {
  const report::TimingSummary& summary = variant.summary;
  if (summary.preemptions > 0) {
    warnings.push_back({"PREEMPTIONS",
                        fmt::format("variant {}: {} preemptions, KV blocks ran out and sequences were computed again; "
                                    "lower max_concurrency or give the cache more memory",
                                    variant.name, summary.preemptions),
                        std::nullopt});
  }
  const auto throttled = std::count_if(variant.trials.begin(), variant.trials.end(),
                                       [](const report::Trial& trial) { return trial.throttled.value_or(false); });
  if (throttled > 0) {
    warnings.push_back({"GPU_THROTTLED",
                        fmt::format("variant {}: a GPU was throttled by power or heat around {} of {} trials; timings "
                                    "may be slower than this GPU can do",
                                    variant.name, throttled, variant.trials.size()),
                        std::nullopt});
  }
  if (summary.failed > 0) {
    std::string first;
    for (const report::RequestRecord& request : variant.requests) {
      if (request.error.empty()) continue;
      first = fmt::format("{}: {}", request.id, request.error);
      break;
    }
    warnings.push_back(
        {"REQUESTS_FAILED",
         fmt::format("variant {}: {} requests failed, the first is {}", variant.name, summary.failed, first),
         std::nullopt});
  }
}

}  // namespace

std::vector<Warning> find_warnings(const profile::Profile& profile, const std::vector<PreparedVariant>& variants,
                                   const report::Result& result, const std::vector<AttentionImpact>& impacts,
                                   const MeasureCopies& measure_copies) {
  std::vector<Warning> warnings;
  if (result.engine.dummy_weights()) {
    warnings.push_back({"DUMMY_WEIGHTS",
                        "weights are random: timings mean something, quality and verdict do not exist, and FP8 scales "
                        "that would be calibrated are 1.0; a model without a tokenizer is timed on random tokens",
                        std::nullopt});
  }
  for (std::size_t i = 0; i < variants.size(); ++i) {
    warn_of_scales(profile, variants[i], result.variants[i], result.variants.front(), impacts, warnings);
  }
  warn_of_devices(profile, result, measure_copies, warnings);
  warn_of_noise(result.variants.front(), warnings);
  for (const VariantResult& variant : result.variants) warn_of_timing(variant, warnings);
  return warnings;
}

std::vector<backend::GpuInfo> gpus_of(const engine::Model& model) {
  if (!model.memory().is_gpu) return {};
  auto gpus = backend::describe_gpus().gpus;
  gpus.resize(std::min(gpus.size(), static_cast<std::size_t>(model.ranks())));
  return gpus;
}

std::optional<DecodeTraffic> decode_traffic(const engine::Model& model, const profile::EngineOptions& engine,
                                            profile::KvCacheDtype dtype) {
  const auto bandwidth = model.read_bandwidth();
  if (!bandwidth) return std::nullopt;
  const auto block = backend::kv_block_bytes(model.config(), model.ranks(), dtype, engine.block_size);
  DecodeTraffic traffic;
  traffic.weight_bytes = static_cast<double>(model.decode_weight_bytes());
  traffic.bytes_per_context_token = static_cast<double>(block) / engine.block_size * model.ranks();
  traffic.bytes_per_second = *bandwidth;
  return traffic;
}

report::EngineInfo describe_engine(const profile::Profile& profile, const model::WeightSource& weights,
                                   const engine::Model& model, const VariantResult& first, std::int64_t memory_size) {
  report::EngineInfo info;
  info.model = profile.model;
  info.model_fingerprint = weights.fingerprint();
  info.quantization = weights.config().quantization.describe();
  info.weights = weights.is_dummy() ? "dummy" : "checkpoint";
  info.device = model.memory().is_gpu ? "cuda" : "cpu";
  info.tp_size = model.ranks();
  if (const auto bandwidth = model.read_bandwidth()) info.read_bandwidth_gb_s = *bandwidth * 1e-9;
  if (const std::string way = model.communicator(); !way.empty()) info.all_reduce = way;
  info.kv_block_size = profile.engine.block_size;
  info.num_kv_blocks = first.num_kv_blocks;
  const std::size_t block = backend::kv_block_bytes(model.config(), model.ranks(),
                                                    profile.variants.front().kv_cache_dtype, profile.engine.block_size);
  const std::int64_t activations =
      engine::activation_bytes_per_rank(model.config(), profile.engine, model.memory().is_gpu);
  for (int rank = 0; rank < model.ranks(); ++rank) {
    report::RankMemory memory;
    memory.weights = static_cast<std::int64_t>(model.weight_bytes(rank));
    memory.kv = first.num_kv_blocks * static_cast<std::int64_t>(block);
    memory.activations = activations;
    const std::int64_t size = model.memory().is_gpu ? model.memory().device : memory_size / model.ranks();
    memory.free = std::max<std::int64_t>(0, size - memory.weights - memory.kv - activations);
    info.memory.push_back(memory);
  }
  return info;
}

report::WorkloadInfo describe_workload(const profile::Profile& profile, const workload::Workload& workload) {
  report::WorkloadInfo info;
  info.dataset_name = workload.dataset_name;
  info.dataset_sha256 = workload.dataset_sha256;
  info.requests_sha256 = workload.requests_sha256;
  info.images_sha256 = workload.images_sha256;
  info.num_prompts = static_cast<std::int64_t>(workload.requests.size());
  info.request_rate = profile.workload.request_rate;
  info.burstiness = profile.workload.burstiness;
  info.max_concurrency = profile.workload.max_concurrency;
  info.seed = profile.workload.seed;
  return info;
}

std::string iso_time(std::int64_t seconds_since_epoch) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds_since_epoch)));
}

std::string file_time(std::int64_t seconds_since_epoch) {
  return fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds_since_epoch)));
}

std::filesystem::path default_output(const std::string& profile_name, std::int64_t seconds_since_epoch) {
  const std::string stem = fmt::format("{}-{}", profile_name, file_time(seconds_since_epoch));
  std::filesystem::path path = fmt::format("results/{}.json", stem);
  for (int i = 2; std::filesystem::exists(path); ++i) path = fmt::format("results/{}-{}.json", stem, i);
  return path;
}

}  // namespace qwenbench::measure
