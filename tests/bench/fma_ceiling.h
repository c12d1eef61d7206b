// What the processor's multiply-add units can do at most: the roof over every fp32 matrix product on a CPU.
#pragma once

namespace qwenbench::bench {

/// GFLOP/s of `threads` threads that at the same time do nothing but independent fp32 multiply-adds on registers, with
/// the vectors of the kernels in use (backend/cpu/kernels.h). Each thread counts its median over runs of half a
/// millisecond, most of which no other process interrupts. Two threads may share one core, and then its units.
double multiply_add_gflops(int threads);

}  // namespace qwenbench::bench
