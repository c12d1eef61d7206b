#include "compare/pair.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "compare/tested.h"
#include "report/metrics.h"

namespace qwenbench::compare {
namespace {

using report::Comparison;

constexpr std::array<std::pair<const char*, double>, 5> kDefaultEffects{
    {{"timing", 0.02}, {"kld_mean", 0.001}, {"ln_ppl_ratio", 0.005}, {"same_top1", 0.005}, {"accuracy", 0.02}}};

/// The key under which a profile may set the effects of a whole group.
std::string group_of(const std::string& metric) {
  if (metric.starts_with("accuracy")) return "accuracy";
  if (metric == "ppl") return "ln_ppl_ratio";
  for (const auto& [name, effect] : kDefaultEffects) {
    if (metric == name) return metric;
  }
  return "timing";
}

}  // namespace

void check_minimum_effects(const std::map<std::string, double>& minimum_effect) {
  for (const auto& [name, value] : minimum_effect) {
    const bool group = group_of(name) == name;
    if (!group) report::metric_info(name);  // throws where there is none
    if (!(value >= 0) || !std::isfinite(value)) {
      throw InputError(
          fmt::format("minimum_effect of {} is {}: give a number of 0 or more", one_line(name, 60), value));
    }
  }
}

double minimum_effect_of(const std::string& metric, const std::map<std::string, double>& overrides) {
  if (const auto own = overrides.find(metric); own != overrides.end()) return own->second;
  const std::string group = group_of(metric);
  if (const auto shared = overrides.find(group); shared != overrides.end()) return shared->second;
  for (const auto& [name, effect] : kDefaultEffects) {
    if (group == name) return effect;
  }
  return 0;
}

std::vector<Comparison> compare_variants(const report::VariantResult& reference, const report::VariantResult& baseline,
                                         const report::VariantResult& candidate, const TestOptions& options) {
  std::vector<Tested> tested = test_quality(reference, baseline, candidate, options);
  std::vector<Tested> timing = test_timing(baseline, candidate, options);
  tested.insert(tested.end(), std::make_move_iterator(timing.begin()), std::make_move_iterator(timing.end()));
  return decide(std::move(tested), options.alpha, false);
}

}  // namespace qwenbench::compare
