// Random numbers that are the same on every machine: Boost's distributions have one definition, the standard's do not.
#pragma once

#include <boost/random/mersenne_twister.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <cstdint>

namespace qwenbench::workload {

using Generator = boost::random::mt19937_64;

/// Independent purposes of one seed.
enum class Stream : std::uint64_t { kArrivals = 1, kPrompts, kLengths, kPictures, kPrefixes, kSampling };

/// SplitMix64 over seed, purpose and index.
inline std::uint64_t derive_seed(std::uint64_t seed, Stream stream, std::uint64_t index = 0) {
  std::uint64_t state = seed;
  for (const std::uint64_t input : {static_cast<std::uint64_t>(stream), index}) {
    state += 0x9e3779b97f4a7c15u + input;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
    state ^= state >> 31;
  }
  return state;
}

template <class Integer>
Integer uniform(Generator& generator, Integer low, Integer high) {
  return boost::random::uniform_int_distribution<Integer>(low, high)(generator);
}

}  // namespace qwenbench::workload
