#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>

#include "compare/tested.h"
#include "report/metrics.h"
#include "stats/clusters.h"
#include "stats/decision.h"
#include "stats/proportions.h"

namespace qwenbench::compare {
namespace {

using report::Comparison;
using report::Quality;
using report::QualityRequest;
using report::VariantResult;

/// The same request under both variants.
struct Pair {
  QualityRequest baseline, candidate;
};

/// What the reference would score against itself without noise.
QualityRequest without_divergence(QualityRequest request) {
  request.kld_sum = 0;
  request.top1_matches = request.n_tokens;
  request.ln_p_sum = request.ln_p_reference_sum;
  request.correct.reset();
  return request;
}

std::vector<Pair> pair_requests(const VariantResult& reference, const VariantResult& baseline,
                                const VariantResult& candidate) {
  std::vector<Pair> pairs;
  if (!candidate.quality) return pairs;
  if (!baseline.quality) {
    if (&baseline != &reference) return pairs;
    for (const QualityRequest& request : candidate.quality->requests) {
      pairs.push_back({without_divergence(request), request});
    }
    return pairs;
  }
  std::unordered_map<std::string, const QualityRequest*> by_id;
  for (const QualityRequest& request : baseline.quality->requests) by_id.emplace(request.id, &request);
  for (const QualityRequest& request : candidate.quality->requests) {
    const auto partner = by_id.find(request.id);
    if (partner == by_id.end() || partner->second->n_tokens != request.n_tokens) continue;
    pairs.push_back({*partner->second, request});
  }
  return pairs;
}

/// A mean per token: sums over a request's tokens.
struct TokenMetric {
  const char* name;
  bool primary;
  double (*sum)(const QualityRequest&);
  std::optional<double> (*value)(const Quality&);
  double (*floor)(const Quality& reference);  // distance of the reference from itself
  bool between_files = false;                 // makes sense only where the variants come from different files
};

/// "ppl" is a mean log-likelihood here, and becomes a ratio of perplexities in the end.
constexpr std::array<TokenMetric, 4> kTokenMetrics{{
    {"kld_mean", true, [](const QualityRequest& r) { return r.kld_sum; }, [](const Quality& q) { return q.kld.mean; },
     [](const Quality& q) { return q.kld.mean.value_or(0); }},
    {"ln_ppl_ratio", false, [](const QualityRequest& r) { return r.ln_p_reference_sum - r.ln_p_sum; },
     [](const Quality& q) { return q.ln_ppl_ratio; },
     [](const Quality& q) { return std::abs(q.ln_ppl_ratio.value_or(0)); }},
    {"same_top1", false, [](const QualityRequest& r) { return static_cast<double>(r.top1_matches); },
     [](const Quality& q) { return q.same_top1; }, [](const Quality& q) { return 1 - q.same_top1.value_or(1); }},
    {"ppl", false, [](const QualityRequest& r) { return -r.ln_p_sum; }, [](const Quality& q) { return q.ppl; },
     [](const Quality&) { return 0.0; }, true},
}};

Comparison named(const std::string& metric, const VariantResult& baseline, const VariantResult& candidate,
                 const TestOptions& options) {
  const report::MetricInfo info = report::metric_info(metric);
  Comparison comparison;
  comparison.metric = info.name;
  comparison.unit = info.unit;
  comparison.lower_is_better = info.lower_is_better;
  comparison.baseline = baseline.name;
  comparison.candidate = candidate.name;
  comparison.minimum_effect = minimum_effect_of(metric, options.minimum_effect);
  return comparison;
}

void fill_from_bootstrap(const stats::Bootstrap& bootstrap, const TestOptions& options, Tested& tested) {
  Comparison& comparison = tested.comparison;
  const stats::Interval ci = bootstrap.expanded_interval(0.95), ci90 = bootstrap.expanded_interval(0.90);
  comparison.change = bootstrap.estimate;
  comparison.ci_low = ci.low;
  comparison.ci_high = ci.high;
  comparison.ci90_low = ci90.low;
  comparison.ci90_high = ci90.high;
  comparison.p_value = bootstrap.p_value();
  tested.smallest_p = stats::smallest_p_bootstrap(bootstrap.clusters, options.bootstrap_resamples);
  tested.estimate = bootstrap.estimate;
  tested.std_error = bootstrap.std_error();
  tested.margin = comparison.minimum_effect;
  tested.identical = bootstrap.replicates.front() == 0 && bootstrap.replicates.back() == 0;
  if (comparison.metric != "ppl") return;
  comparison.relative = true;
  tested.margin = std::log1p(comparison.minimum_effect);
  for (auto* value :
       {&comparison.change, &comparison.ci_low, &comparison.ci_high, &comparison.ci90_low, &comparison.ci90_high}) {
    *value = std::expm1(**value);
  }
}

/// Differences candidate - baseline of every request, for the metrics whose sums are all finite.
struct TokenTable {
  std::vector<std::size_t> metrics;  // indices into kTokenMetrics
  std::vector<double> rows, tokens;
};

TokenTable token_table(const std::vector<Pair>& pairs, const TestOptions& options) {
  TokenTable table;
  for (std::size_t m = 0; m < kTokenMetrics.size(); ++m) {
    if (kTokenMetrics[m].between_files && !options.between_files) continue;
    const bool finite = std::all_of(pairs.begin(), pairs.end(), [&](const Pair& pair) {
      return std::isfinite(kTokenMetrics[m].sum(pair.candidate)) && std::isfinite(kTokenMetrics[m].sum(pair.baseline));
    });
    if (finite) table.metrics.push_back(m);
  }
  for (const Pair& pair : pairs) {
    if (pair.candidate.n_tokens <= 0) continue;
    table.tokens.push_back(static_cast<double>(pair.candidate.n_tokens));
    for (const std::size_t m : table.metrics) {
      table.rows.push_back(kTokenMetrics[m].sum(pair.candidate) - kTokenMetrics[m].sum(pair.baseline));
    }
  }
  return table;
}

std::vector<Tested> test_tokens(const VariantResult& reference, const VariantResult& baseline,
                                const VariantResult& candidate, const std::vector<Pair>& pairs,
                                const TestOptions& options) {
  const TokenTable table = token_table(pairs, options);
  std::vector<Tested> result;
  if (table.tokens.empty()) return result;
  for (const TokenMetric& metric : kTokenMetrics) {
    if (metric.between_files && !options.between_files) break;  // the last
    Tested& tested = result.emplace_back();
    tested.comparison = named(metric.name, baseline, candidate, options);
    tested.comparison.primary = metric.primary;
    tested.comparison.test = "bootstrap over requests";
    tested.comparison.n = static_cast<std::int64_t>(table.tokens.size());
    tested.comparison.candidate_value = metric.value(*candidate.quality);
    if (baseline.quality) tested.comparison.baseline_value = metric.value(*baseline.quality);
    if (reference.quality) {
      const double floor = metric.floor(*reference.quality);
      tested.comparison.minimum_effect = std::max(tested.comparison.minimum_effect, floor);
    }
  }
  if (table.tokens.size() < 2 || table.metrics.empty()) return result;
  // Where nothing differs, every resample is zero: two are as good as ten thousand.
  const bool zero = std::all_of(table.rows.begin(), table.rows.end(), [](double x) { return x == 0; });
  const std::vector<stats::Bootstrap> bootstraps = stats::bootstrap_ratios(
      table.rows, table.metrics.size(), table.tokens, zero ? 2 : options.bootstrap_resamples, options.bootstrap_seed);
  for (std::size_t i = 0; i < bootstraps.size(); ++i) {
    fill_from_bootstrap(bootstraps[i], options, result[table.metrics[i]]);
  }
  return result;
}

struct Answers {
  std::int64_t n = 0, baseline_correct = 0, candidate_correct = 0;
  stats::Discordance discordance;
};

std::map<std::string, Answers> count_answers(const std::vector<Pair>& pairs) {
  std::map<std::string, Answers> tasks;
  for (const Pair& pair : pairs) {
    if (!pair.baseline.correct || !pair.candidate.correct) continue;
    const bool before = *pair.baseline.correct, after = *pair.candidate.correct;
    Answers& task = tasks[pair.candidate.task];
    ++task.n;
    task.baseline_correct += before;
    task.candidate_correct += after;
    task.discordance.only_baseline += before && !after;
    task.discordance.only_candidate += after && !before;
  }
  return tasks;
}

Tested test_task(const VariantResult& baseline, const VariantResult& candidate, const std::string& task,
                 const Answers& answers, const TestOptions& options) {
  Tested tested;
  Comparison& comparison = tested.comparison = named("accuracy:" + task, baseline, candidate, options);
  const double n = static_cast<double>(answers.n);
  const stats::Interval ci = stats::paired_difference_interval(answers.discordance, answers.n, 0.95);
  const stats::Interval ci90 = stats::paired_difference_interval(answers.discordance, answers.n, 0.90);
  comparison.primary = true;
  comparison.test = "McNemar";
  comparison.n = answers.n;
  comparison.baseline_value = static_cast<double>(answers.baseline_correct) / n;
  comparison.candidate_value = static_cast<double>(answers.candidate_correct) / n;
  comparison.change = static_cast<double>(answers.candidate_correct - answers.baseline_correct) / n;
  comparison.ci_low = ci.low;
  comparison.ci_high = ci.high;
  comparison.ci90_low = ci90.low;
  comparison.ci90_high = ci90.high;
  comparison.p_value = stats::exact_mcnemar(answers.discordance);
  tested.smallest_p = stats::smallest_p_mcnemar(static_cast<std::size_t>(answers.n));
  tested.estimate = *comparison.change;
  tested.std_error = (ci90.high - ci90.low) / (2 * stats::normal_quantile(0.95));
  tested.margin = comparison.minimum_effect;
  tested.identical = answers.discordance.only_baseline == 0 && answers.discordance.only_candidate == 0;
  return tested;
}

}  // namespace

std::vector<Tested> test_quality(const VariantResult& reference, const VariantResult& baseline,
                                 const VariantResult& candidate, const TestOptions& options) {
  const std::vector<Pair> pairs = pair_requests(reference, baseline, candidate);
  std::vector<Tested> result = test_tokens(reference, baseline, candidate, pairs, options);
  for (const auto& [task, answers] : count_answers(pairs)) {
    result.push_back(test_task(baseline, candidate, task, answers, options));
  }
  return result;
}

}  // namespace qwenbench::compare
