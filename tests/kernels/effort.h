// How much the suites on a GPU try. QWENBENCH_TEST_EFFORT=reduced: fewer random shapes and none that are large, for
// compute-sanitizer, under which kernels take many times as long.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace qwenbench::test {

inline bool is_reduced() {
  static const bool reduced = [] {
    const char* effort = std::getenv("QWENBENCH_TEST_EFFORT");
    return effort && std::string_view(effort) == "reduced";
  }();
  return reduced;
}

/// Of `all` repetitions with other random numbers, those to be made.
inline int rounds(int all) { return is_reduced() ? std::max(2, all / 8) : all; }

/// Whether a case that works on so many numbers is to be left out.
inline bool is_too_large(long long numbers) { return is_reduced() && numbers > 1 << 18; }

}  // namespace qwenbench::test
