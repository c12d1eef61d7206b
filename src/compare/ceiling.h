// The quality ceiling: how much damage a profile allows an FP8 variant at most, whatever it is compared with.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compare/pair.h"
#include "report/result.h"

namespace qwenbench::compare {

/// One limit against one variant: the metric's estimate and 95 % interval (bootstrap over requests; accuracy_drop: the
/// task that loses most against the reference). nullopt where it could not be measured.
struct CeilingCheck {
  std::string metric;
  double ceiling = 0;
  std::optional<double> estimate, low, high;
  std::int64_t n = 0;                          // requests
  std::optional<std::int64_t> samples_needed;  // that would probably bring the interval to one side of the ceiling

  bool within() const { return high && *high <= ceiling; }
  bool exceeded() const { return low && *low > ceiling; }
};

/// kld_mean, ln_ppl_ratio and accuracy_drop can have a ceiling; throws InputError for another name.
void check_ceiling_names(const std::map<std::string, double>& ceiling);

/// `against_reference` are the comparisons reference -> variant.
std::vector<CeilingCheck> check_ceilings(const report::VariantResult& variant,
                                         const std::vector<report::Comparison>& against_reference,
                                         const std::map<std::string, double>& ceiling, const TestOptions& options);

}  // namespace qwenbench::compare
