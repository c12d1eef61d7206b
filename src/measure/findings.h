// What an experiment says beside its numbers: warnings, and what the engine was.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backend/devices.h"
#include "engine/model.h"
#include "measure/attention_impact.h"
#include "measure/runner.h"
#include "measure/variants.h"
#include "model/weights.h"
#include "profile/profile.h"
#include "report/result.h"
#include "workload/workload.h"

namespace qwenbench::measure {

/// The GPUs that a model runs on; none for a CPU.
std::vector<backend::GpuInfo> gpus_of(const engine::Model& model);

/// Null where the device's read bandwidth is not known (a CPU).
std::optional<DecodeTraffic> decode_traffic(const engine::Model& model, const profile::EngineOptions& engine,
                                            profile::KvCacheDtype dtype);

using MeasureCopies = std::function<std::optional<backend::CopyBandwidth>()>;

/// Warnings that the finished measurements give rise to, DUMMY_WEIGHTS, KV_SCALE_UNIT, Q_PROB_SCALE_UNIT,
/// Q_SCALE_FROM_K, P2P_UNAVAILABLE, PIN_MEMORY_OFF, KV_SCALE_MODEL_UNCHECKED, KV_SCALE_ZERO_AMAX, NOISE_FLOOR,
/// PREEMPTIONS, REQUESTS_FAILED; each with its measured impact where that was measured. `impacts`: empty where FP8
/// attention was not. `measure_copies` is called where memory is not pinned.
std::vector<report::Warning> find_warnings(const profile::Profile& profile,
                                           const std::vector<PreparedVariant>& variants, const report::Result& result,
                                           const std::vector<AttentionImpact>& impacts,
                                           const MeasureCopies& measure_copies = backend::measure_copy_bandwidth);

/// `memory_size`: bytes of the host, which its ranks share. Activations are the plan's upper bound
/// (engine/memory_plan.h).
report::EngineInfo describe_engine(const profile::Profile& profile, const model::WeightSource& weights,
                                   const engine::Model& model, const report::VariantResult& first,
                                   std::int64_t memory_size);

report::WorkloadInfo describe_workload(const profile::Profile& profile, const workload::Workload& workload);

/// "2026-11-22T18:00:00Z" and the form for file names, "20261122T180000Z".
std::string iso_time(std::int64_t seconds_since_epoch);
std::string file_time(std::int64_t seconds_since_epoch);

/// results/<profile>-<time>.json, or with -2, -3 ... where that exists.
std::filesystem::path default_output(const std::string& profile_name, std::int64_t seconds_since_epoch);

}  // namespace qwenbench::measure
