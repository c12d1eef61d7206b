// The all-reduce after a row-split product, in one kernel with what follows it.
#pragma once

#include "kernels/add_norm.h"
#include "kernels/all_reduce.h"

namespace qwenbench::kernels {

/// add_norm() where `partial` is first summed over ranks (fp32, in rank order, not rounded before it joins the
/// residual). Every rank then holds the same bits in residual and out, provided that it did in residual before.
///
/// One-shot: every rank pushes its rows to all others, (ranks - 1) times the payload leaves each. Two-shot: a row is
/// summed by one rank, which sends the new residual, fp32, to the others, 3 (ranks - 1) / ranks times the payload: less
/// from four ranks on, and two trips instead of one. Both compute the same bits.
enum class AllReduceShape { kOneShot, kTwoShot };

cudaError_t all_reduce_add_norm(const PeerExchange& exchange, const AddNorm& args, AllReduceShape shape,
                                cudaStream_t stream);

}  // namespace qwenbench::kernels
