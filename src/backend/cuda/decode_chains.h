// Finds, in the text program, what one kernel computes in a decode step (kernels/decode_chain.h): from attention's
// output projection to the next layer's fused QKV, or to the last norm.
#pragma once

#include <optional>
#include <vector>

#include "backend/cuda/rank_context.h"
#include "kernels/decode_chain.h"

namespace qwenbench::backend::cuda {

/// Linears whose result goes into SwiGlu: of these, gate and up rows lie in pairs (kernels::W4Weights::paired).
std::vector<bool> paired_linears(const graph::Plan& plan);

class DecodeChains {
 public:
  /// Once weights and communicator are there. None are found where a weight has another form than 4 bit, or where the
  /// ranks add up in another way than by peer access.
  explicit DecodeChains(const RankContext& context);

  /// Runs the chain that begins at operation `op`, for rows that are one token of a sequence each and none of a
  /// picture; returns the number of operations it stands for, 0 where none runs.
  std::size_t run(std::size_t op, RankContext& context, Buffers& buffers);
  /// Whether run() runs a chain there. Its input, which the attention in front of it leaves, is then to be multiplied
  /// by kernels::kChainInputFactor.
  bool runs(std::size_t op, const Buffers& buffers) const { return chain_at(op, buffers) != nullptr; }

 private:
  /// The operations of a chain, one after another.
  struct Chain {
    std::size_t first = 0, count = 0;
    const graph::Linear *o, *gate_up, *down, *qkv;  // qkv null: the program ends with the norm
    const graph::AllReduceAddNorm *middle, *next;
    kernels::DecodeChain kernel;  // what does not depend on the step
  };
  static std::optional<Chain> match(const std::vector<graph::Op>& ops, std::size_t first);
  static bool complete(const RankContext& context, Chain& chain);
  const Chain* chain_at(std::size_t op, const Buffers& buffers) const;  // nullptr where run() runs none

  std::vector<Chain> chains_;  // in the order of the program
  DeviceArray<std::byte> workspace_;
};

}  // namespace qwenbench::backend::cuda
