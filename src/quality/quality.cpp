#include "quality/quality.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "quality/reduce.h"

namespace qwenbench::quality {
namespace {

using workload::Request;

/// Compares what a scorer brings with the reference, a tile of rows at a time.
class Comparer {
 public:
  Comparer(std::span<const Request> block, std::size_t begin, const std::string& variant,
           const ReferenceRows& reference, const ScoringOptions& options, ThreadPool& pool)
      : block_(block), begin_(begin), variant_(variant), reference_(reference), options_(options), pool_(pool) {
    const std::size_t row_bytes = static_cast<std::size_t>(options.vocab_size) * sizeof(float);
    tile_rows_ = static_cast<int>(std::max<std::size_t>(1, options.tile_bytes / row_bytes));
    scores_.reserve(block.size());
    for (const Request& request : block) scores_.emplace_back(static_cast<std::size_t>(scored_rows(request)));
    missing_.reserve(block.size());
    for (const Request& request : block) missing_.push_back(scored_rows(request));
  }

  void on_rows(std::size_t index, int first, std::span<const float> hidden) {
    const auto width = static_cast<std::size_t>(options_.hidden_size);
    const int rows = static_cast<int>(hidden.size() / width);
    for (int done = 0; done < rows; done += tile_rows_) {
      const int count = std::min(tile_rows_, rows - done);
      compare(index, first + done,
              hidden.subspan(static_cast<std::size_t>(done) * width, static_cast<std::size_t>(count) * width), count);
    }
    missing_[index] -= rows;
    if (missing_[index] == 0 && options_.on_scored) options_.on_scored();
  }

  const std::vector<std::vector<TokenScore>>& scores() const { return scores_; }

 private:
  void compare(std::size_t index, int first, std::span<const float> hidden, int rows) {
    const Request& request = block_[index];
    const std::span<const std::int32_t> targets(request.forced.data() + request.score_from + first,
                                                static_cast<std::size_t>(rows));
    const std::span<TokenScore> out(scores_[index].data() + first, static_cast<std::size_t>(rows));
    const auto reference_hidden = reference_.hidden(begin_ + index, first, rows);
    const bool done =
        options_.compare && !reference_hidden.empty() && options_.compare(reference_hidden, hidden, targets, out);
    if (!done) {
      const std::vector<float> mine = options_.logits(hidden, rows);
      const std::vector<float> theirs = reference_.logits(begin_ + index, first, rows);
      compare_logits(theirs, mine, options_.vocab_size, targets, out, pool_);
    }
    for (int row = 0; row < rows; ++row) {
      if (out[row].finite) continue;
      throw InputError(
          fmt::format("variant {}: logits of request {} are not finite at token {} (or the reference's are)", variant_,
                      request.id, target_position(request, first + row)));
    }
  }

  std::span<const Request> block_;
  std::size_t begin_;
  const std::string& variant_;
  const ReferenceRows& reference_;
  const ScoringOptions& options_;
  ThreadPool& pool_;
  int tile_rows_;
  std::vector<std::vector<TokenScore>> scores_;  // of each request of the block, one a scored row
  std::vector<int> missing_;                     // rows not scored yet
};

report::QualityRequest sums_of(const Request& request, std::span<const TokenScore> tokens) {
  report::QualityRequest sums;
  sums.id = request.id;
  sums.task = request.task;
  sums.has_image = !request.images.empty();
  sums.n_tokens = static_cast<std::int64_t>(tokens.size());
  bool all_hit = true;
  for (const TokenScore& token : tokens) {
    sums.kld_sum += token.kld;
    sums.top1_matches += token.same_top1 ? 1 : 0;
    sums.ln_p_sum += token.ln_p;
    sums.ln_p_reference_sum += token.ln_p_reference;
    sums.delta_p_sum += token.delta_p;
    sums.delta_p_square_sum += token.delta_p * token.delta_p;
    all_hit = all_hit && token.hit;
  }
  if (!request.task.empty()) sums.correct = all_hit;
  return sums;
}

void append(report::QualitySamples& samples, const Request& request, std::span<const TokenScore> tokens) {
  samples.requests.push_back(sums_of(request, tokens));
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    samples.kld.push_back(static_cast<float>(tokens[row].kld));
    samples.delta_p.push_back(static_cast<float>(tokens[row].delta_p));
    samples.same_top1.push_back(tokens[row].same_top1 ? 1 : 0);
    samples.position.push_back(target_position(request, static_cast<int>(row)));
  }
}

/// Scores requests [begin, end) with every variant and appends to the outcome; false where it was cancelled.
bool score_block(std::span<const Request> requests, std::size_t begin, std::size_t end, const ReferenceRows& reference,
                 std::span<const ScoredVariant> variants, const ScoringOptions& options, ThreadPool& pool,
                 ScoringOutcome& outcome) {
  const std::span<const Request> block = requests.subspan(begin, end - begin);
  std::vector<Comparer> comparers;
  comparers.reserve(variants.size());
  for (const ScoredVariant& variant : variants) {
    Comparer& comparer = comparers.emplace_back(block, begin, variant.name, reference, options, pool);
    const bool complete = variant.open()->score(
        block,
        [&](std::size_t index, int first, std::span<const float> hidden) { comparer.on_rows(index, first, hidden); });
    if (!complete) return false;
  }
  for (std::size_t v = 0; v < variants.size(); ++v) {
    for (std::size_t i = 0; i < block.size(); ++i) append(outcome.samples[v], block[i], comparers[v].scores()[i]);
  }
  return true;
}

ScoringOutcome empty_outcome(std::span<const ScoredVariant> variants, const ScoringOptions& options) {
  ScoringOutcome outcome;
  outcome.samples.resize(variants.size());
  for (report::QualitySamples& samples : outcome.samples) samples.reference = options.reference_name;
  return outcome;
}

/// Keeps the hidden states of one block; false where it was cancelled.
bool fill(HiddenReference& rows, std::span<const Request> block, const ScoredVariant& reference,
          const ScoringOptions& options) {
  std::vector<int> missing;
  for (const Request& request : block) missing.push_back(scored_rows(request));
  return reference.open()->score(block, [&](std::size_t index, int first, std::span<const float> hidden) {
    rows.store(index, first, hidden);
    missing[index] -= static_cast<int>(hidden.size() / static_cast<std::size_t>(options.hidden_size));
    if (missing[index] == 0 && options.on_scored) options.on_scored();
  });
}

}  // namespace

ScoringOutcome score_variants(std::span<const Request> requests, const ScoredVariant& reference,
                              std::span<const ScoredVariant> variants, const ScoringOptions& options,
                              ThreadPool& pool) {
  ScoringOutcome outcome = empty_outcome(variants, options);
  const std::vector<std::size_t> begins = blocks_of(requests, options.hidden_size, options.block_bytes);
  for (std::size_t b = 0; b + 1 < begins.size() && !outcome.cancelled; ++b) {
    const std::span<const Request> block = requests.subspan(begins[b], begins[b + 1] - begins[b]);
    HiddenReference rows(block, begins[b], options.hidden_size, options.logits);
    outcome.cancelled = !fill(rows, block, reference, options) ||
                        !score_block(requests, begins[b], begins[b + 1], rows, variants, options, pool, outcome);
  }
  return outcome;
}

ScoringOutcome score_against(std::span<const Request> requests, const ReferenceRows& reference,
                             std::span<const ScoredVariant> variants, const ScoringOptions& options, ThreadPool& pool) {
  ScoringOutcome outcome = empty_outcome(variants, options);
  outcome.cancelled = !score_block(requests, 0, requests.size(), reference, variants, options, pool, outcome);
  return outcome;
}

}  // namespace qwenbench::quality
