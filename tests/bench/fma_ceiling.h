// What the processor's multiply-add units can do at most: the roof over every fp32 matrix product on a CPU.
#pragma once

namespace qwenbench::bench {

/// GFLOP/s of `threads` threads that do nothing but independent fp32 multiply-adds on registers, with the vectors of
/// the kernels in use (backend/cpu/kernels.h): the largest of several short runs. Two threads may share one core.
double multiply_add_gflops(int threads);

}  // namespace qwenbench::bench
