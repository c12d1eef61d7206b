#include "quality/reduce.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace qwenbench::quality {
namespace {

struct RowSummary {
  int top1;         // lowest index of the largest logit
  double log_norm;  // max + ln sum exp(x - max)
};

/// `exps` keeps exp(x_i - max) where it is not null.
RowSummary summarize(const float* row, int vocab, double* exps) {
  const int top1 = static_cast<int>(std::max_element(row, row + vocab) - row);
  const double largest = row[top1];
  double sum = 0;
  for (int i = 0; i < vocab; ++i) {
    const double e = std::exp(static_cast<double>(row[i]) - largest);
    if (exps != nullptr) exps[i] = e;
    sum += e;
  }
  return {top1, largest + std::log(sum)};
}

bool all_finite(const float* row, int vocab) {
  return std::all_of(row, row + vocab, [](float x) { return std::isfinite(x); });
}

TokenScore compare_row(const float* reference, const float* variant, int vocab, int target, std::vector<double>& exps) {
  TokenScore score;
  if (!all_finite(reference, vocab) || !all_finite(variant, vocab)) {
    score.finite = false;
    return score;
  }
  const RowSummary p = summarize(reference, vocab, exps.data());
  const RowSummary q = summarize(variant, vocab, nullptr);
  // p_i = exps_i / sum, and the sum is exp(log_norm - max).
  const double scale = std::exp(static_cast<double>(reference[p.top1]) - p.log_norm);
  const double shift = q.log_norm - p.log_norm;
  double kld = 0;
  for (int i = 0; i < vocab; ++i) {
    kld += exps[i] * (static_cast<double>(reference[i]) - static_cast<double>(variant[i]) + shift);
  }
  score.kld = std::max(0.0, kld * scale);
  score.ln_p = static_cast<double>(variant[target]) - q.log_norm;
  score.ln_p_reference = static_cast<double>(reference[target]) - p.log_norm;
  score.delta_p = std::exp(score.ln_p) - std::exp(score.ln_p_reference);
  score.same_top1 = p.top1 == q.top1;
  score.hit = q.top1 == target;
  return score;
}

}  // namespace

void compare_logits(std::span<const float> reference, std::span<const float> variant, int vocab,
                    std::span<const std::int32_t> targets, std::span<TokenScore> out, ThreadPool& pool) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  pool.parallel_for(rows, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> exps(static_cast<std::size_t>(vocab));
    for (std::int64_t row = begin; row < end; ++row) {
      out[row] = compare_row(reference.data() + row * vocab, variant.data() + row * vocab, vocab, targets[row], exps);
    }
  });
}

}  // namespace qwenbench::quality
