#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"

namespace qwenbench::engine {
namespace {

/// Largest logit; -infinity where none is larger (also where all are NaN). Lanes let the compiler use vectors.
float largest(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> best;
  best.fill(-std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      best[lane] = logits[i + lane] > best[lane] ? logits[i + lane] : best[lane];
    }
  }
  for (; i < logits.size(); ++i) best[0] = logits[i] > best[0] ? logits[i] : best[0];
  return *std::max_element(best.begin(), best.end());
}

float checked_largest(std::span<const float> logits) {
  const float best = largest(logits);
  if (!std::isfinite(best)) throw_not_finite();
  return best;
}

/// The k-th largest logit, or -infinity where top_k is off.
float smallest_kept(std::span<const float> logits, int top_k) {
  if (top_k <= 0 || static_cast<std::size_t>(top_k) >= logits.size()) return -std::numeric_limits<float>::infinity();
  std::vector<float> sorted(logits.begin(), logits.end());
  std::nth_element(sorted.begin(), sorted.begin() + (top_k - 1), sorted.end(), std::greater<>());
  return sorted[top_k - 1];
}

/// The most probable ones until they reach `share` of the total, sorted.
std::vector<Candidate> nucleus(std::vector<Candidate> all, double share) {
  // A heap, not a sort: of 150,000 tokens a few hundred are taken.
  const auto less = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability < b.probability : a.token > b.token;
  };
  std::make_heap(all.begin(), all.end(), less);
  auto end = all.end();
  double sum = 0;
  while (end != all.begin() && sum < share) {
    std::pop_heap(all.begin(), end, less);
    sum += (--end)->probability;
  }
  return {std::make_reverse_iterator(all.end()), std::make_reverse_iterator(end)};
}

void normalize(std::vector<Candidate>& all) {
  double sum = 0;
  for (const auto& candidate : all) sum += candidate.probability;
  for (auto& candidate : all) candidate.probability /= sum;
}

}  // namespace

void throw_not_finite() {
  throw DeviceError("the model's logits are not finite; check the checkpoint and the KV scales");
}

std::int32_t greedy(std::span<const float> logits) {
  const float best = checked_largest(logits);
  return static_cast<std::int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

std::vector<Candidate> candidates(std::span<const float> logits, const workload::SamplingOptions& options) {
  const float best = checked_largest(logits);
  const float threshold = smallest_kept(logits, options.top_k);
  std::vector<Candidate> all;
  for (std::size_t token = 0; token < logits.size(); ++token) {
    if (!(logits[token] >= threshold)) continue;
    const double scaled = (static_cast<double>(logits[token]) - best) / options.temperature;
    all.push_back({static_cast<std::int32_t>(token), std::exp(scaled)});
  }
  normalize(all);
  if (options.top_p < 1) {
    all = nucleus(std::move(all), options.top_p);
    normalize(all);
  }
  return all;
}

double uniform(std::uint64_t seed, std::uint64_t index) {
  // J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
  constexpr std::uint64_t kMultiply0 = 0xD2E7470EE14C6C93ull, kMultiply1 = 0xCA5A826395121157ull;
  constexpr std::uint64_t kWeyl0 = 0x9E3779B97F4A7C15ull, kWeyl1 = 0xBB67AE8584CAA73Bull;
  std::array<std::uint64_t, 4> counter{index + 1, 0, 0, 0};
  std::array<std::uint64_t, 2> key{seed, 0};
  for (int round = 0; round < 10; ++round) {
    const unsigned __int128 product0 = static_cast<unsigned __int128>(kMultiply0) * counter[0];
    const unsigned __int128 product1 = static_cast<unsigned __int128>(kMultiply1) * counter[2];
    counter = {static_cast<std::uint64_t>(product1 >> 64) ^ counter[1] ^ key[0], static_cast<std::uint64_t>(product1),
               static_cast<std::uint64_t>(product0 >> 64) ^ counter[3] ^ key[1], static_cast<std::uint64_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return static_cast<double>(counter[0] >> 11) * 0x1p-53;
}

std::int32_t sample(std::span<const float> logits, const workload::SamplingOptions& options, int index) {
  if (options.temperature < kGreedyTemperature) return greedy(logits);
  const std::vector<Candidate> all = candidates(logits, options);
  double left = uniform(options.seed, static_cast<std::uint64_t>(index));
  for (const auto& candidate : all) {
    left -= candidate.probability;
    if (left < 0) return candidate.token;
  }
  // Rounding has left a rest of the last 1e-16: the last one that can be drawn at all.
  const auto possible = std::find_if(all.rbegin(), all.rend(), [](const auto& c) { return c.probability > 0; });
  return possible->token;
}

}  // namespace qwenbench::engine
