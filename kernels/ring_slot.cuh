// Walking round a ring of stages in shared memory.
#pragma once

#include <cstdint>

namespace qwenbench::kernels {

/// A slot of the ring and the parity of its barriers in its present use.
struct Slot {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance(int by, int stages) {
    index += by;
    while (index >= stages) index -= stages, parity ^= 1;
  }
};

}  // namespace qwenbench::kernels
