// What a decode step computes between one attention and the next, as one kernel: attention's output projection, the
// residual and its norm, the feed-forward half, and the next layer's fused QKV. Its thread blocks stay for all four
// products, so that the stream of weights goes on where the products wait for each other.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/all_reduce.h"
#include "kernels/w4_linear.h"

namespace qwenbench::kernels {

constexpr int kChainMaxTokens = 16;
/// What the kernel wants its input multiplied by: it spares the multiplication each of the many times it is read.
constexpr float kChainInputFactor = 0x1p64f;

/// An RMSNorm of the residual.
struct ChainNorm {
  const __nv_bfloat16* weight = nullptr;  // [hidden]
  float eps = 0;
};

/// For m tokens, with h = residual and P = the sum over ranks:
///   h += P(o(attended)); y = swiglu(gate_up(norm(h, middle))); h += P(down(y)); qkv_out = qkv(norm(h, next)).
/// All four weights are of one group class: below 128 columns, or 128 and more.
struct DecodeChain {
  W4Weights o;        // [hidden, k]
  W4Weights gate_up;  // [2 * k of down, hidden], rows paired (w4_repack)
  W4Weights down;     // [hidden, k]
  W4Weights qkv;      // [n, hidden]; n = 0: the model ends here, and the residual is the result
  ChainNorm middle, next;
  const __nv_bfloat16* attended = nullptr;  // [m, o.k], times kChainInputFactor (DecodeAttention::out_factor)
  float* residual = nullptr;                // [m, hidden]
  // [m, qkv.n]; a word (two values) is 0 from the time that the next kernel may start until it is written, and 0 is
  // written as -0, so that the next kernel can look at what is there already.
  __nv_bfloat16* qkv_out = nullptr;
  int m = 0;                  // 1 .. kChainMaxTokens
  void* workspace = nullptr;  // decode_chain_workspace_bytes(), zeroed once; a model's chains share it
  PeerExchange peers;         // between ranks; one rank: left as it is
  int thread_limit = 0;       // of a thread block; 0: as many as the device has registers for
};

std::size_t decode_chain_workspace_bytes(const DecodeChain& chain);

/// Whether decode_chain() takes these weights (forms, groups, sizes) on the current device; never where ranks share it:
/// a rank's thread blocks, all of which must be there, could wait for room that another's take.
bool decode_chain_supports(const DecodeChain& chain);

/// The sums are in fp32, in an order that depends on shapes and device alone. Between ranks the parts of a sum are
/// rounded to bf16, and added in rank order: the residual has the same bits on all ranks.
cudaError_t decode_chain(const DecodeChain& chain, cudaStream_t stream);

}  // namespace qwenbench::kernels
