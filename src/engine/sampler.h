// From logits to a token. Pure: the result depends on the logits, the options and the index of the token alone, never
// on what else is in the batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "workload/request.h"

namespace qwenbench::engine {

/// Below this temperature sampling is greedy, as in vLLM.
inline constexpr double kGreedyTemperature = 1e-5;

/// What is thrown where no logit is a number.
[[noreturn]] void throw_not_finite();

/// The token with the largest logit; the lowest id among equals. Throws DeviceError where no logit is a number.
std::int32_t greedy(std::span<const float> logits);

struct Candidate {
  std::int32_t token;
  double probability;
};

/// What a token is drawn from, in vLLM's order: logits / temperature; top_k keeps the k largest and whatever equals the
/// k-th; of the softmax over these, top_p keeps the most probable (lower ids first among equals) until they reach p.
/// Probabilities add up to 1; computed in double.
std::vector<Candidate> candidates(std::span<const float> logits, const workload::SamplingOptions& options);

/// In [0, 1): Philox4x64-10 with key (seed, 0) at counter `index` + 1, its first word's upper 53 bits: the first number
/// of numpy.random.Philox(key=seed, counter=index).
double uniform(std::uint64_t seed, std::uint64_t index);

/// Output token `index` of a request.
std::int32_t sample(std::span<const float> logits, const workload::SamplingOptions& options, int index);

}  // namespace qwenbench::engine
