// How long L2 keeps what is read.
#pragma once

#include <cstdint>

namespace qwenbench::kernels {

/// For what a decode step reads once, more of it than L2 holds: it goes out first, so that it does not displace what
/// every layer reads again: instructions, norm weights, angles, block tables, activations.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ std::uint64_t evict_normal_policy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0;" : "=l"(policy));
  return policy;
}

}  // namespace qwenbench::kernels
