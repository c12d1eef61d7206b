#include "measure/schedule.h"

namespace qwenbench::measure {

std::vector<ScheduledTrial> palindromic_schedule(int variants, int trials) {
  std::vector<ScheduledTrial> order;
  order.reserve(static_cast<std::size_t>(variants) * static_cast<std::size_t>(trials));
  for (int trial = 0; trial < trials; ++trial) {
    const int rotation = trial / 2;
    const bool backwards = trial % 2 == 1;
    for (int place = 0; place < variants; ++place) {
      const int step = backwards ? variants - 1 - place : place;
      order.push_back({(rotation + step) % variants, trial, static_cast<int>(order.size())});
    }
  }
  return order;
}

}  // namespace qwenbench::measure
