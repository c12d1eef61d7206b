#include "backend/position_table.h"

#include <algorithm>

namespace qwenbench::backend {

std::vector<TablePosition> table_positions(int count, int side) {
  std::vector<TablePosition> result;
  const float end = static_cast<float>(side - 1);
  const float step = count > 1 ? end / static_cast<float>(count - 1) : 0.0f;
  for (int i = 0; i < count; ++i) {
    const float at =
        i < count / 2 || count == 1 ? step * static_cast<float>(i) : end - step * static_cast<float>(count - 1 - i);
    const int floor = static_cast<int>(at);
    result.push_back({floor, std::min(floor + 1, side - 1), at - static_cast<float>(floor)});
  }
  return result;
}

}  // namespace qwenbench::backend
