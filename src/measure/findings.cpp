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

/// What the profile alone lets one warn of, now with what it cost.
void warn_of_scales(profile::Profile profile, const PreparedVariant& variant, const VariantResult& result,
                    const VariantResult& reference, std::vector<Warning>& warnings) {
  profile.variants = {variant.variant};
  for (const profile::Warning& warning : profile::profile_warnings(profile, false)) {
    Warning& added = warnings.emplace_back(Warning{warning.code, warning.message, std::nullopt});
    if (warning.code == "KV_SCALE_UNIT") added.measured_impact = impact_of(result, reference);
  }
  if (!variant.fp8()) return;
  for (const std::string& sentence : variant.scales->warnings) {
    warnings.push_back({"KV_SCALE_ZERO_AMAX", fmt::format("variant {}: {}", result.name, sentence), std::nullopt});
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

void warn_of_slow_links(const report::Result& result, std::vector<Warning>& warnings) {
  const auto& way = result.engine.all_reduce;
  if (!way || *way == "p2p" || result.environment.p2p.value_or(true)) return;
  warnings.push_back(
      {"P2P_UNAVAILABLE",
       fmt::format("not all GPUs have peer access to each other, sums go over {}; nvidia-smi topo -p2p r "
                   "says between which, and an IOMMU or a container's settings may stand in the way",
                   *way == "host" ? "main memory" : "NCCL"),
       std::nullopt});
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
                                   const report::Result& result) {
  std::vector<Warning> warnings;
  if (result.engine.dummy_weights()) {
    warnings.push_back({"DUMMY_WEIGHTS",
                        "weights are random: timings mean something, quality and verdict do not exist, and FP8 scales "
                        "that would be calibrated are 1.0; a model without a tokenizer is timed on random tokens",
                        std::nullopt});
  }
  for (std::size_t i = 0; i < variants.size(); ++i) {
    warn_of_scales(profile, variants[i], result.variants[i], result.variants.front(), warnings);
  }
  warn_of_slow_links(result, warnings);
  warn_of_noise(result.variants.front(), warnings);
  for (const VariantResult& variant : result.variants) warn_of_timing(variant, warnings);
  return warnings;
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
