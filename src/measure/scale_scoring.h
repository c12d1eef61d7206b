// How far caches with other scales move what the model says: mean KL divergence over teacher-forced requests.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "measure/load.h"
#include "profile/profile.h"
#include "report/result.h"
#include "workload/request.h"

namespace qwenbench::measure {

/// One way to keep K and V. Empty scales are 1; read_scales differ from what storing used only as a deliberate fault.
struct CacheSetting {
  std::string name;
  profile::KvCacheDtype dtype = profile::KvCacheDtype::kFp8E4M3;
  std::vector<model::LayerKvScales> scales, read_scales;
  std::string attention_dtype = "auto";
};

/// Every setting against the first, request by request. Empty where Ctrl-C ended it. `progress` counts requests, those
/// of every setting.
std::vector<report::QualitySamples> score_settings(const profile::Profile& profile, const LoadedModel& loaded,
                                                   std::span<const workload::Request> requests,
                                                   const std::vector<CacheSetting>& settings, Progress& progress);

/// nats a token, over all requests or those with (or without) pictures; null where there are none.
enum class RequestKind { kAll, kText, kImage };
std::optional<double> mean_kld(const report::QualitySamples& samples, RequestKind kind = RequestKind::kAll);

}  // namespace qwenbench::measure
