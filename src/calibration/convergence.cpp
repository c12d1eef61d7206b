#include "calibration/convergence.h"

#include <algorithm>
#include <cmath>

namespace qwenbench::calibration {

ScaleChange change_of(const ScaleSet& before, const ScaleSet& after) {
  ScaleChange change;
  for (std::size_t layer = 0; layer < after.layers.size(); ++layer) {
    const auto compare = [&](const std::vector<float>& old_values, const std::vector<float>& new_values) {
      for (std::size_t i = 0; i < new_values.size(); ++i) {
        const double moved = std::abs(static_cast<double>(new_values[i]) / old_values[i] - 1);
        if (moved > change.largest) change = {moved, static_cast<int>(layer)};
      }
    };
    const model::LayerKvScales &then = before.layers[layer], &now = after.layers[layer];
    compare(then.k, now.k);
    compare(then.v, now.v);
    if (then.q && now.q) compare(*then.q, *now.q);
  }
  return change;
}

std::optional<SecondHalf> second_half(const std::vector<Look>& looks) {
  if (looks.empty()) return std::nullopt;
  const Look& now = looks.back();
  const auto half =
      std::find_if(looks.rbegin(), looks.rend(), [&](const Look& look) { return 2 * look.requests <= now.requests; });
  if (half == looks.rend()) return std::nullopt;
  return SecondHalf{half->requests, now.requests, change_of(half->scales, now.scales)};
}

bool settled(const SecondHalf& half) { return half.change.largest < kSettledChange; }

std::optional<bool> Movement::settled() const {
  if (!half) return std::nullopt;
  return calibration::settled(*half);
}

Movement movement_of(const std::string& method, const std::vector<Look>& looks) {
  Movement movement{method, {}, second_half(looks)};
  for (std::size_t i = 0; i < looks.size(); ++i) {
    movement.points.push_back({looks[i].requests, looks[i].tokens, {}});
    if (i > 0) movement.points.back().change = change_of(looks[i - 1].scales, looks[i].scales);
  }
  return movement;
}

}  // namespace qwenbench::calibration
