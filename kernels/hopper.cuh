// Instructions of sm_90a: barriers of warps, the copy engine, registers that warpgroups (four warps) hand over, products
// of a warpgroup. To be called in code compiled for sm_90a alone (has_wgmma_code()).
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/shared_barrier.cuh"

namespace qwenbench::kernels::device {

/// Whether the code at hand is compiled for sm_90a: a kernel's body stands behind it.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define QWENBENCH_WARPGROUP_PRODUCTS 1
#else
#define QWENBENCH_WARPGROUP_PRODUCTS 0
#endif

/// Barriers 1 .. 15 of a thread block, of whole warps.
__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// ---- shared memory that the copy engine and the products see ----

/// Orders this thread's ordinary accesses to shared memory before what the copy engine or a product does there next.
__device__ inline void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Where chunk c of 16 bytes of row r lies in a tile of 128-byte rows, swizzled so that no eight rows meet in a bank.
__device__ inline unsigned swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/// Starts the copy of the map's box at (x, y[, z]); its bytes arrive at the barrier.
__device__ inline void copy_box(unsigned to, const CUtensorMap& map, int x, int y, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}
__device__ inline void copy_box(unsigned to, const CUtensorMap& map, int x, int y, int z, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

// ---- registers ----
// Of a thread; all threads of a warpgroup call them. What some take, others must have given: a thread block has no more
// than it was launched with, and take_registers() waits until there are enough.

template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- products of a warpgroup ----
// They run behind the code that starts them, in groups, over registers that must then be left alone.

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most kPending groups run.
template <int kPending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving accesses of x across this place.
template <int kCount>
__device__ inline void pin(float (&x)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    asm volatile("" : "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])::"memory");
}

/// An operand in shared memory, in swizzled rows of 128 bytes. k_major: rows run along m or n. Otherwise rows run along
/// k, and columns beyond 64 elements lie `next_columns` bytes further.
__device__ inline std::uint64_t operand_at(unsigned address, unsigned next_columns = 16) {
  constexpr unsigned kNextRows = 1024, kSwizzle128 = 1u << 30;  // eight rows further
  const unsigned low = ((address & 0x3ffff) >> 4) | (next_columns >> 4) << 16;
  return static_cast<std::uint64_t>(kNextRows >> 4 | kSwizzle128) << 32 | low;
}
/// The same, `bytes` further.
__device__ inline std::uint64_t advance(std::uint64_t operand, int bytes) { return operand + (bytes >> 4); }

#define QWENBENCH_OCTET(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define QWENBENCH_OCTETS_32                                                                                        \
  QWENBENCH_OCTET(0), QWENBENCH_OCTET(1), QWENBENCH_OCTET(2), QWENBENCH_OCTET(3), QWENBENCH_OCTET(4),              \
      QWENBENCH_OCTET(5), QWENBENCH_OCTET(6), QWENBENCH_OCTET(7)
#define QWENBENCH_OCTETS_64                                                                                        \
  QWENBENCH_OCTETS_32, QWENBENCH_OCTET(8), QWENBENCH_OCTET(9), QWENBENCH_OCTET(10), QWENBENCH_OCTET(11),           \
      QWENBENCH_OCTET(12), QWENBENCH_OCTET(13), QWENBENCH_OCTET(14), QWENBENCH_OCTET(15)
#define QWENBENCH_NAMES_32                                                                                         \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define QWENBENCH_NAMES_64                                                                                      \
  QWENBENCH_NAMES_32                                                                                            \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58," \
  "%59,%60,%61,%62,%63"

/// d [64 x 128] = a [64 x 16] b [128 x 16]^T, or added to d; bf16, fp32 sums. Lane (g, t) = (lane / 4, lane % 4) of warp
/// w holds d[j]: columns 8j + 2t, 8j + 2t + 1 of row 16w + g, then of row 16w + g + 8.
template <bool kAdd>
__device__ inline void multiply_shared(float (&d)[16][4], std::uint64_t a, std::uint64_t b) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" QWENBENCH_NAMES_64
               "}, %64, %65, add, 1, 1, 0, 0;\n}"
               : QWENBENCH_OCTETS_64
               : "l"(a), "l"(b), "n"(kAdd ? 1 : 0));
}

/// d [64 x 8 kOctets] += a [64 x 16] b [16 x 8 kOctets], a in registers: a lane's columns 2t, 2t + 1 of rows 16w + g and
/// 16w + g + 8, then columns 2t + 8, 2t + 9 of them; the rows of b run along k.
__device__ inline void multiply_registers(float (&d)[16][4], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" QWENBENCH_NAMES_64
               "}, {%64,%65,%66,%67}, %68, add, 1, 1, 1;\n}"
               : QWENBENCH_OCTETS_64
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(1));
}
__device__ inline void multiply_registers(float (&d)[9][4], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %41, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 {" QWENBENCH_NAMES_32
               ",%32,%33,%34,%35}, {%36,%37,%38,%39}, %40, add, 1, 1, 1;\n}"
               : QWENBENCH_OCTETS_32, QWENBENCH_OCTET(8)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(1));
}
__device__ inline void multiply_registers(float (&d)[8][4], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" QWENBENCH_NAMES_32
               "}, {%32,%33,%34,%35}, %36, add, 1, 1, 1;\n}"
               : QWENBENCH_OCTETS_32
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(1));
}

#undef QWENBENCH_OCTET
#undef QWENBENCH_OCTETS_32
#undef QWENBENCH_OCTETS_64
#undef QWENBENCH_NAMES_32
#undef QWENBENCH_NAMES_64

}  // namespace qwenbench::kernels::device
