// The quality part of an experiment: every variant against the reference, over the same teacher-forced requests.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quality/reference.h"
#include "quality/scorer.h"
#include "report/result.h"

namespace qwenbench::quality {

/// One way to score the requests. `open` makes a scorer, which is destroyed before the next one is opened: each has the
/// whole KV memory to itself.
struct ScoredVariant {
  std::string name;
  std::function<std::unique_ptr<Scorer>()> open;
};

struct ScoringOptions {
  int hidden_size = 0;
  int vocab_size = 0;
  LogitsFunction logits;
  CompareFunction compare;  // may be empty
  /// Memory: the reference's hidden states of one block of requests; beside them two tiles of logits and one step's
  /// hidden states.
  std::size_t block_bytes = std::size_t{512} << 20;
  std::size_t tile_bytes = std::size_t{32} << 20;  // logits of one tile
  std::string reference_name;
  std::function<void()> on_scored;  // after every request of every pass (reference passes too): progress
};

struct ScoringOutcome {
  std::vector<report::QualitySamples> samples;  // one per variant, in their order
  bool cancelled = false;                       // by interrupted(): every variant has the same first requests, or none
};

/// Scores blocks of requests: first with `reference`, whose hidden states are kept, then with every variant. A variant
/// that is the reference itself, opened with another batch composition and chunking, gives the noise floor. Task
/// answers are judged by the teacher-forced pass: every top-1 over the answer's tokens, its end token included, is the
/// target. That is equal to an exact match of greedy decoding, which by induction forces the same tokens.
/// Throws InputError naming request and variant where logits are not finite.
ScoringOutcome score_variants(std::span<const workload::Request> requests, const ScoredVariant& reference,
                              std::span<const ScoredVariant> variants, const ScoringOptions& options, ThreadPool& pool);

/// The same against logits from elsewhere.
ScoringOutcome score_against(std::span<const workload::Request> requests, const ReferenceRows& reference,
                             std::span<const ScoredVariant> variants, const ScoringOptions& options, ThreadPool& pool);

}  // namespace qwenbench::quality
