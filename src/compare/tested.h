// A comparison on its way from estimate to verdict. Private to src/compare.
#pragma once

#include <vector>

#include "compare/pair.h"
#include "report/result.h"

namespace qwenbench::compare {

struct Tested {
  report::Comparison comparison;
  double smallest_p = 1;  // that this many samples could have given at all
  // For the sample-size hint, on the scale where the error is symmetric (log ratio for timings).
  double estimate = 0, std_error = 0, margin = 0;
};

/// Student t on log ratios of the trials with equal index: median_ttft_ms, median_itl_ms, p99_itl_ms (see
/// kTestedSamplesP99), output_throughput and decode_throughput, as far as both variants have them.
std::vector<Tested> test_timing(const report::VariantResult& baseline, const report::VariantResult& candidate,
                                const TestOptions& options);

/// kld_mean, ln_ppl_ratio and same_top1 by bootstrap over the requests that both scored; accuracy:TASK by McNemar.
std::vector<Tested> test_quality(const report::VariantResult& reference, const report::VariantResult& baseline,
                                 const report::VariantResult& candidate, const TestOptions& options);

}  // namespace qwenbench::compare
