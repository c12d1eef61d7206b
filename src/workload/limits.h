// What a request must keep to.
#pragma once

#include <string>

#include "model/config.h"
#include "profile/profile.h"
#include "workload/request.h"

namespace qwenbench::workload {

/// Throws InputError "WHERE: request ID: ..." where it is empty, exceeds max_model_len or limit_mm_per_prompt.
void check_limits(const Request& request, const std::string& where, const profile::EngineOptions& engine,
                  int max_model_len);

}  // namespace qwenbench::workload
