// How scales move while more and more requests are seen, and when they have settled.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "calibration/scales.h"

namespace qwenbench::calibration {

/// The scales after so many requests of the set.
struct Look {
  int requests = 0;
  std::int64_t tokens = 0;
  ScaleSet scales;
};

/// Largest |new / old - 1| over all k, v and q scales, and its layer.
struct ScaleChange {
  double largest = 0;
  int layer = 0;
};
ScaleChange change_of(const ScaleSet& before, const ScaleSet& after);

/// What the second half of the requests seen has moved: from the last look that had seen at most half of them.
struct SecondHalf {
  int from_requests = 0, requests = 0;
  ScaleChange change;
};
/// None where no look is so early.
std::optional<SecondHalf> second_half(const std::vector<Look>& looks);

/// The scales of one method over the looks.
struct Movement {
  struct Point {
    int requests = 0;
    std::int64_t tokens = 0;
    ScaleChange change;  // since the look before; 0 at the first
  };
  std::string method;  // of estimators.h
  std::vector<Point> points;
  std::optional<SecondHalf> half;

  /// None where there is no half to judge by.
  std::optional<bool> settled() const;
};
Movement movement_of(const std::string& method, const std::vector<Look>& looks);

/// Settled: the second half of the requests seen has moved every scale by less (relative).
inline constexpr double kSettledChange = 0.01;
bool settled(const SecondHalf& half);

}  // namespace qwenbench::calibration
