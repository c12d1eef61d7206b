#include "profile/warnings.h"

#include <fmt/format.h>

namespace qwenbench::profile {

std::vector<Warning> profile_warnings(const Profile& profile, bool on_gpu) {
  std::vector<Warning> warnings;
  for (const auto& variant : profile.variants) {
    if (variant.kv_cache_dtype != KvCacheDtype::kFp8E4M3 || variant.kv_scales != "unit") continue;
    warnings.push_back(
        {"KV_SCALE_UNIT", fmt::format("variant {} stores K and V in FP8 with scale 1.0: what exceeds 448 saturates, "
                                      "what is below 2^-10 becomes 0; this run measures whether it matters",
                                      variant.name)});
    const bool in_use = profile.engine.attention_dtype == "fp8";
    warnings.push_back(
        {"Q_PROB_SCALE_UNIT",
         fmt::format("variant {} has no q_scale and prob_scale, and servers warn of 1.0: {}", variant.name,
                     in_use ? "attention multiplies in FP8 with q_scale 1.0 (prob_scale is 2^-8, which "
                              "needs no calibration)"
                            : "only attention in FP8 reads them, and engine.attention_dtype is auto")});
  }
  if (on_gpu && profile.engine.pin_memory == Switch::kOff) {
    warnings.push_back(
        {"PIN_MEMORY_OFF", "engine.pin_memory is off: copies between host and device are slower and block"});
  }
  return warnings;
}

}  // namespace qwenbench::profile
