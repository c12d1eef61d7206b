#include "backend/cuda/decode_chains.h"

#include <algorithm>

#include "kernels/add_norm.h"

namespace qwenbench::backend::cuda {
namespace {

template <class T>
const T* as(const std::vector<graph::Op>& ops, std::size_t i) {
  return i < ops.size() ? std::get_if<T>(&ops[i]) : nullptr;
}

kernels::ChainNorm norm_of(const RankContext& context, graph::NormId id) {
  return {context.norms[id].weight.get(), context.plan.norms[id].eps};
}

bool is_plain_int4(const RankContext& context, const graph::Linear& op) {
  const DeviceLinear& linear = context.linears[op.weight];
  return linear.form == WeightForm::kInt4 && linear.bias.get() == nullptr && op.activation == graph::Activation::kNone;
}

}  // namespace

std::vector<bool> paired_linears(const graph::Plan& plan) {
  std::vector<bool> paired(plan.linears.size(), false);
  const auto& ops = plan.text.ops;
  for (std::size_t i = 0; i + 1 < ops.size(); ++i) {
    const auto* linear = as<graph::Linear>(ops, i);
    const auto* swiglu = as<graph::SwiGlu>(ops, i + 1);
    if (linear && swiglu && swiglu->in == linear->out) paired[linear->weight] = true;
  }
  return paired;
}

std::optional<DecodeChains::Chain> DecodeChains::match(const std::vector<graph::Op>& ops, std::size_t first) {
  const auto* attention = first > 0 ? as<graph::PagedAttention>(ops, first - 1) : nullptr;
  Chain chain;
  chain.first = first;
  chain.o = as<graph::Linear>(ops, first);
  chain.middle = as<graph::AllReduceAddNorm>(ops, first + 1);
  chain.gate_up = as<graph::Linear>(ops, first + 2);
  const auto* swiglu = as<graph::SwiGlu>(ops, first + 3);
  chain.down = as<graph::Linear>(ops, first + 4);
  chain.next = as<graph::AllReduceAddNorm>(ops, first + 5);
  chain.qkv = as<graph::Linear>(ops, first + 6);
  if (!chain.o || !chain.middle || !chain.gate_up || !swiglu || !chain.down || !chain.next) return std::nullopt;
  const bool connected = attention && attention->out == chain.o->in && chain.middle->partial == chain.o->out &&
                         chain.gate_up->in == chain.middle->out && swiglu->in == chain.gate_up->out &&
                         chain.down->in == swiglu->out && chain.next->partial == chain.down->out &&
                         chain.next->residual == chain.middle->residual &&
                         (!chain.qkv || chain.qkv->in == chain.next->out);
  if (!connected) return std::nullopt;
  chain.count = chain.qkv ? 7 : 6;
  return chain;
}

/// Fills in weights; false where the kernel does not take them.
bool DecodeChains::complete(const RankContext& context, Chain& chain) {
  for (const graph::Linear* linear : {chain.o, chain.gate_up, chain.down, chain.qkv})
    if (linear && !is_plain_int4(context, *linear)) return false;
  for (const graph::AllReduceAddNorm* join : {chain.middle, chain.next})
    if (join->bias_of >= 0 || join->norm == graph::kNoNorm || join->reduce == false) return false;
  kernels::DecodeChain& kernel = chain.kernel;
  kernel.o = context.linears[chain.o->weight].int4;
  kernel.gate_up = context.linears[chain.gate_up->weight].int4;
  kernel.down = context.linears[chain.down->weight].int4;
  if (chain.qkv) kernel.qkv = context.linears[chain.qkv->weight].int4;
  kernel.middle = norm_of(context, chain.middle->norm);
  kernel.next = norm_of(context, chain.next->norm);
  if (context.comm) {
    const kernels::PeerExchange* peers = context.comm->peers();
    if (!peers) return false;
    kernel.peers = *peers;
  }
  return kernels::decode_chain_supports(kernel);
}

DecodeChains::DecodeChains(const RankContext& context) {
  const auto& ops = context.plan.text.ops;
  for (std::size_t i = 0; i < ops.size();) {
    std::optional<Chain> chain = match(ops, i);
    if (!chain || !complete(context, *chain)) {
      ++i;
      continue;
    }
    i += chain->count;
    chains_.push_back(*chain);
  }
  std::size_t bytes = 0;
  for (const Chain& chain : chains_) bytes = std::max(bytes, kernels::decode_chain_workspace_bytes(chain.kernel));
  if (bytes == 0) return;
  workspace_.reserve(bytes);
  fill_with_zeros(workspace_);
  for (Chain& chain : chains_) chain.kernel.workspace = workspace_.get();
}

const DecodeChains::Chain* DecodeChains::chain_at(std::size_t op, const Buffers& buffers) const {
  const auto chain = std::lower_bound(chains_.begin(), chains_.end(), op,
                                      [](const Chain& c, std::size_t first) { return c.first < first; });
  if (chain == chains_.end() || chain->first != op) return nullptr;
  const int rows = buffers.rows(chain->o->out);
  return rows >= 1 && rows <= kernels::kChainMaxTokens ? &*chain : nullptr;
}

std::size_t DecodeChains::run(std::size_t op, RankContext& context, Buffers& buffers) {
  const Chain* chain = chain_at(op, buffers);
  if (!chain) return 0;
  const int rows = buffers.rows(chain->o->out);
  kernels::DecodeChain kernel = chain->kernel;
  kernel.m = rows;
  kernel.attended = buffers.data(chain->o->in);
  kernel.residual = buffers.wide(chain->middle->residual);
  if (chain->qkv) kernel.qkv_out = buffers.data(chain->qkv->out);
  QWENBENCH_CUDA(kernels::decode_chain(kernel, context.stream));
  if (!chain->qkv) {
    kernels::AddNorm last;
    last.residual = kernel.residual;
    last.out = buffers.data(chain->next->out);
    last.weight = kernel.next.weight;
    last.eps = kernel.next.eps;
    last.rows = rows;
    last.width = buffers.width(chain->next->residual);
    QWENBENCH_CUDA(kernels::add_norm(last, context.stream));
  }
  return chain->count;
}

}  // namespace qwenbench::backend::cuda
