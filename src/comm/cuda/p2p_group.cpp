#include "comm/cuda/p2p_group.h"

#include <algorithm>
#include <cstring>

#include "base/cuda_check.h"
#include "comm/cuda/bootstrap.h"
#include "kernels/all_reduce_add_norm.h"

namespace qwenbench::comm {
namespace {

constexpr int kLine = 32;  // words of a cache line

}  // namespace

P2pGroup::P2pGroup(int ranks, long long slot_bytes) : memory_(ranks), slot_bytes_(slot_bytes) {
  const std::size_t bytes = sizeof(std::uint32_t) * kLine * (ranks + 1);
  QWENBENCH_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&flags_), bytes, cudaHostAllocPortable | cudaHostAllocMapped));
  std::memset(flags_, 0, bytes);
}

P2pGroup::~P2pGroup() {
  abort();
  int current = -1;
  cudaGetDevice(&current);
  for (const RankMemory& rank : memory_) {  // no kernel may still write to a peer whose memory is gone
    if (rank.device >= 0 && cudaSetDevice(rank.device) == cudaSuccess) cudaDeviceSynchronize();
  }
  for (const RankMemory& rank : memory_) {
    if (rank.device < 0 || cudaSetDevice(rank.device) != cudaSuccess) continue;
    cudaFree(rank.staging);
    cudaFree(rank.quads);
    cudaFree(rank.state);
  }
  cudaFreeHost(flags_);
  if (current >= 0) cudaSetDevice(current);
}

std::shared_ptr<P2pGroup> P2pGroup::join(Communicator& host, long long slot_bytes) {
  if (host.size() > kernels::kMaxRanks) {
    throw InputError("all_reduce p2p joins at most " + std::to_string(kernels::kMaxRanks) +
                     " GPUs; set engine.all_reduce to \"nccl\"");
  }
  // Ranks are threads of one process: rank 0's pointer is good for all.
  std::shared_ptr<P2pGroup> group;
  if (host.rank() == 0) group.reset(new P2pGroup(host.size(), slot_bytes));
  const auto pointers = gather_objects(host, &group);
  if (host.rank() != 0) group = *pointers[0];
  host.barrier();  // rank 0 may leave now
  group->allocate(host.rank());
  host.barrier();  // all parts are there
  group->open_peers(host.rank());
  host.barrier();  // nobody starts before all can be reached
  return group;
}

void P2pGroup::allocate(int rank) {
  RankMemory& mine = memory_[rank];
  QWENBENCH_CUDA(cudaGetDevice(&mine.device));
  QWENBENCH_CUDA(cudaDeviceGetAttribute(&mine.processors, cudaDevAttrMultiProcessorCount, mine.device));
  const std::size_t bytes = kernels::kExchangeBuffers * memory_.size() * static_cast<std::size_t>(slot_bytes_);
  QWENBENCH_CUDA(cudaMalloc(reinterpret_cast<void**>(&mine.staging), bytes));
  QWENBENCH_CUDA(cudaMalloc(reinterpret_cast<void**>(&mine.state), sizeof(kernels::ExchangeState)));
  QWENBENCH_CUDA(cudaMemset(mine.staging, 0xff, bytes));
  const std::size_t quad_bytes = 2 * memory_.size() * static_cast<std::size_t>(kernels::kQuadBytes);
  QWENBENCH_CUDA(cudaMalloc(reinterpret_cast<void**>(&mine.quads), quad_bytes));
  QWENBENCH_CUDA(cudaMemset(mine.quads, 0xff, quad_bytes));
  QWENBENCH_CUDA(cudaMemset(mine.state, 0, sizeof(kernels::ExchangeState)));
  QWENBENCH_CUDA(cudaDeviceSynchronize());
}

void P2pGroup::open_peers(int rank) const {
  for (const RankMemory& peer : memory_) {
    if (peer.device == memory_[rank].device) continue;
    const cudaError_t error = cudaDeviceEnablePeerAccess(peer.device, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled)
      cudaGetLastError();
    else
      QWENBENCH_CUDA(error);
  }
}

kernels::PeerExchange P2pGroup::exchange_of(int rank) const {
  kernels::PeerExchange exchange;
  exchange.rank = rank;
  exchange.ranks = static_cast<int>(memory_.size());
  for (int r = 0; r < exchange.ranks; ++r) {
    exchange.staging[r] = memory_[r].staging;
    exchange.quads[r] = memory_[r].quads;
  }
  exchange.slot_bytes = slot_bytes_;
  exchange.state = memory_[rank].state;
  exchange.abort = flags_;
  exchange.gave_up = gave_up_flag(rank);
  return exchange;
}

int P2pGroup::most_ranks_on_a_device() const {
  std::ptrdiff_t most = 0;
  for (const RankMemory& mine : memory_)
    most = std::max(most, std::count_if(memory_.begin(), memory_.end(),
                                        [&](const RankMemory& other) { return other.device == mine.device; }));
  return static_cast<int>(most);
}

int P2pGroup::fewest_processors() const {
  return std::min_element(memory_.begin(), memory_.end(),
                          [](const RankMemory& a, const RankMemory& b) { return a.processors < b.processors; })
      ->processors;
}

std::uint32_t* P2pGroup::gave_up_flag(int rank) const { return flags_ + kLine * (rank + 1); }

void P2pGroup::abort() { std::atomic_ref(*flags_).store(1); }

bool P2pGroup::gave_up(int rank, kernels::GaveUp reason) const {
  return std::atomic_ref(gave_up_flag(rank)[static_cast<int>(reason)]).load() != 0;
}

int P2pGroup::timed_out_rank() const {
  for (int rank = 0; rank < static_cast<int>(memory_.size()); ++rank)
    if (gave_up(rank, kernels::GaveUp::kTimeOut)) return rank;
  return -1;
}

double P2pGroup::seconds(int rank) const {
  unsigned long long nanoseconds = 0;
  QWENBENCH_CUDA(
      cudaMemcpy(&nanoseconds, &memory_[rank].state->nanoseconds, sizeof nanoseconds, cudaMemcpyDeviceToHost));
  return static_cast<double>(nanoseconds) * 1e-9;
}

}  // namespace qwenbench::comm
