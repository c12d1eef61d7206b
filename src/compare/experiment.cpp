#include "compare/experiment.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "compare/ceiling.h"
#include "compare/pair.h"
#include "compare/verdict.h"
#include "report/metrics.h"

namespace qwenbench::compare {
namespace {

using report::Comparison;
using report::Result;
using report::VariantResult;

/// Who is who; null where the experiment has no such variant.
struct Roles {
  const VariantResult* reference = nullptr;
  const VariantResult* baseline = nullptr;
  const VariantResult* candidate = nullptr;
};

const VariantResult* find_variant(const Result& result, const std::string& name) {
  const auto found = std::find_if(result.variants.begin(), result.variants.end(),
                                  [&](const VariantResult& variant) { return variant.name == name; });
  return found == result.variants.end() ? nullptr : &*found;
}

/// The variant of that name; without a name the one with the usual name; else the first that has no role yet.
const VariantResult* assign(const Result& result, const std::string& name, const char* usual, const Roles& taken) {
  const auto is_free = [&](const VariantResult* v) {
    return v != taken.reference && v != taken.baseline && v != taken.candidate;
  };
  if (!name.empty()) {
    const VariantResult* variant = find_variant(result, name);
    if (!variant) {
      std::vector<std::string> known;
      for (const VariantResult& v : result.variants) known.push_back(v.name);
      throw InputError(fmt::format("no variant \"{}\" in this result; it has {}", one_line(name, 60),
                                   one_line(fmt::format("{}", fmt::join(known, ", ")))));
    }
    return variant;
  }
  if (const VariantResult* variant = find_variant(result, usual); variant && is_free(variant)) return variant;
  for (const VariantResult& variant : result.variants) {
    if (is_free(&variant) && variant.name != "calibrated") return &variant;
  }
  return nullptr;
}

Roles assign_roles(const Result& result, const ExperimentOptions& options) {
  Roles roles;
  if (result.variants.empty()) return roles;
  roles.reference =
      options.reference.empty() ? &result.variants.front() : assign(result, options.reference, "reference", roles);
  // A name that is given is not free for the roles without one.
  if (!options.candidate.empty()) roles.candidate = assign(result, options.candidate, "calibrated", roles);
  roles.baseline = assign(result, options.baseline, "baseline", roles);
  if (options.candidate.empty()) roles.candidate = assign(result, options.candidate, "calibrated", roles);
  if (!roles.baseline) std::swap(roles.baseline, roles.candidate);
  if (roles.baseline == roles.reference || (roles.baseline && roles.baseline == roles.candidate)) {
    throw InputError("reference, baseline and candidate must be different variants");
  }
  return roles;
}

std::string describe_slo(const report::SloResult& slo) {
  const std::string metric = slo.limit.stat.empty() ? slo.limit.metric : slo.limit.metric + " " + slo.limit.stat;
  if (!slo.observed) return fmt::format("slo on {}: not measured for {}", metric, slo.variant);
  std::string limits;
  if (slo.limit.max) limits += fmt::format(" <= {:g}", *slo.limit.max);
  if (slo.limit.min) limits += fmt::format("{} >= {:g}", limits.empty() ? "" : " and", *slo.limit.min);
  return fmt::format("slo{} on {} missed by {}: {:.4g}", limits, metric, slo.variant, *slo.observed);
}

bool all_failed(const VariantResult& variant) { return variant.summary.failed > 0 && variant.summary.completed == 0; }

Side side_of(const Result& result, const VariantResult& variant, const VariantResult& reference,
             const ExperimentOptions& options, const TestOptions& tests) {
  Side side;
  side.name = variant.name;
  std::vector<Comparison> against_reference;
  std::copy_if(result.comparisons.begin(), result.comparisons.end(), std::back_inserter(against_reference),
               [&](const Comparison& c) { return c.baseline == reference.name && c.candidate == variant.name; });
  side.ceilings = check_ceilings(variant, against_reference, options.ceiling, tests);
  for (const report::SloResult& slo : result.slo) {
    if (slo.variant != variant.name || slo.pass) continue;
    side.slo_holds = false;
    side.failed_slo.push_back(describe_slo(slo));
  }
  side.failed_requests = variant.summary.failed;
  side.every_request_failed = all_failed(variant);
  return side;
}

/// The chosen pair first, then what each variant costs against the reference, then baseline against any others.
std::vector<Comparison> compare_all(const Result& result, const Roles& roles, const TestOptions& tests) {
  std::vector<Comparison> all;
  const auto append = [&](const VariantResult* from, const VariantResult* to) {
    if (!from || !to || from == to) return;
    std::vector<Comparison> pair = compare_variants(*roles.reference, *from, *to, tests);
    all.insert(all.end(), std::make_move_iterator(pair.begin()), std::make_move_iterator(pair.end()));
  };
  append(roles.baseline, roles.candidate);
  for (const VariantResult& variant : result.variants) append(roles.reference, &variant);
  for (const VariantResult& variant : result.variants) {
    if (&variant != roles.reference && &variant != roles.candidate) append(roles.baseline, &variant);
  }
  return all;
}

void note_circumstances(const Result& result, const Roles& roles, report::Verdict& verdict) {
  if (result.was_cancelled) verdict.reasons.push_back("the run was cancelled: these are partial results");
  for (const VariantResult* variant : {roles.reference, roles.baseline, roles.candidate}) {
    if (!variant || variant->summary.failed == 0) continue;
    const std::int64_t all = variant->summary.failed + variant->summary.completed;
    verdict.reasons.push_back(
        fmt::format("{} of {} requests of {} failed", variant->summary.failed, all, variant->name));
  }
}

}  // namespace

void judge(Result& result, const ExperimentOptions& options) {
  check_minimum_effects(options.minimum_effect);
  check_ceiling_names(options.ceiling);
  result.comparisons.clear();
  result.verdict.reset();
  result.slo = report::check_slo(result.variants, options.slo);
  const Roles roles = assign_roles(result, options);
  if (!roles.baseline) return;
  const TestOptions tests{options.minimum_effect, options.bootstrap_resamples, options.bootstrap_seed, options.alpha};
  result.comparisons = compare_all(result, roles, tests);
  const bool scored = roles.baseline->quality || (roles.candidate && roles.candidate->quality);
  if (result.engine.dummy_weights() || !scored) return;

  const Side baseline = side_of(result, *roles.baseline, *roles.reference, options, tests);
  std::optional<Side> candidate;
  std::vector<Comparison> chosen;
  if (roles.candidate) {
    candidate = side_of(result, *roles.candidate, *roles.reference, options, tests);
    std::copy_if(result.comparisons.begin(), result.comparisons.end(), std::back_inserter(chosen),
                 [&](const Comparison& c) { return c.baseline == baseline.name && c.candidate == candidate->name; });
  }
  result.verdict = decide_verdict(baseline, candidate, chosen);
  note_circumstances(result, roles, *result.verdict);
}

ExitCode exit_code(const Result& result) {
  if (result.was_cancelled) return ExitCode::kCancelled;
  const bool every_request_failed = std::any_of(result.variants.begin(), result.variants.end(), all_failed);
  const bool slo_missed =
      std::any_of(result.slo.begin(), result.slo.end(), [](const report::SloResult& slo) { return !slo.pass; });
  return every_request_failed || slo_missed ? ExitCode::kRegression : ExitCode::kOk;
}

}  // namespace qwenbench::compare
