// Where the patches of a picture fall on the vision tower's learned position table [side * side, hidden].
#pragma once

#include <vector>

namespace qwenbench::backend {

/// Where a grid line falls on one side of the table.
struct TablePosition {
  int floor, ceil;
  float weight;  // of ceil
};

/// torch.linspace(0, side - 1, count) in fp32, computed from both ends as PyTorch does.
std::vector<TablePosition> table_positions(int count, int side);

}  // namespace qwenbench::backend
