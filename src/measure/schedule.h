// The order in which trials of several variants run.
#pragma once

#include <vector>

namespace qwenbench::measure {

struct ScheduledTrial {
  int variant;   // index into the variants
  int trial;     // 0-based number of the variant's trial
  int position;  // place in the whole order
};

/// Palindromic blocks: two trials of every variant a block, forwards then backwards (R B C C B R), so that a linear
/// drift of the machine hits every variant alike; each block begins with the next variant (B C R R C B), so that none
/// always runs at the edge. An odd last trial is half a block. Every variant has `trials` trials; trial i of all
/// variants stands in the same half block.
std::vector<ScheduledTrial> palindromic_schedule(int variants, int trials);

}  // namespace qwenbench::measure
