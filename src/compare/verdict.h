// The decision table of an experiment. Quality decides, timing can only veto.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compare/ceiling.h"
#include "report/result.h"

namespace qwenbench::compare {

/// What is known about one FP8 variant.
struct Side {
  std::string name;
  std::vector<CeilingCheck> ceilings;
  bool slo_holds = true;
  std::vector<std::string> failed_slo;  // sentences
  bool every_request_failed = false;
  std::int64_t failed_requests = 0;

  bool within_ceiling() const;
  /// One limit is exceeded even by the lower bound.
  bool over_ceiling() const;
};

/// The first that holds: reject-fp8 (every FP8 variant is over the ceiling), adopt-calibrated (candidate improves a
/// primary metric, regresses in none, is within the ceiling, slo hold), accept-baseline (baseline is not inferior to
/// candidate by the minimum effect on any primary, is within the ceiling, slo hold), inconclusive. `comparisons` are
/// baseline -> candidate; without a candidate only reject-fp8 can hold.
report::Verdict decide_verdict(const Side& baseline, const std::optional<Side>& candidate,
                               const std::vector<report::Comparison>& comparisons);

}  // namespace qwenbench::compare
