// What a profile itself lets one warn of, before anything runs.
#pragma once

#include <string>
#include <vector>

#include "profile/profile.h"

namespace qwenbench::profile {

struct Warning {
  std::string code;     // KV_SCALE_UNIT, Q_PROB_SCALE_UNIT, PIN_MEMORY_OFF
  std::string message;  // one sentence
};

/// `on_gpu`: what concerns GPUs only is left out elsewhere.
std::vector<Warning> profile_warnings(const Profile& profile, bool on_gpu);

}  // namespace qwenbench::profile
