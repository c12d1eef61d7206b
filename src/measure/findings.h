// What an experiment says beside its numbers: warnings, and what the engine was.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/model.h"
#include "measure/variants.h"
#include "model/weights.h"
#include "profile/profile.h"
#include "report/result.h"
#include "workload/workload.h"

namespace qwenbench::measure {

/// Warnings that the finished measurements give rise to, DUMMY_WEIGHTS, KV_SCALE_UNIT
/// (with its measured impact), KV_SCALE_ZERO_AMAX, NOISE_FLOOR, PREEMPTIONS, REQUESTS_FAILED,
/// P2P_UNAVAILABLE.
std::vector<report::Warning> find_warnings(const profile::Profile& profile,
                                           const std::vector<PreparedVariant>& variants, const report::Result& result);

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
