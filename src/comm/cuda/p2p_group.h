// The memory through which the ranks of one process reach each other: staging buffers and states on the devices, flags
// on the host. It lives as long as any of them, because a peer's kernel may still write into it.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "kernels/all_reduce.h"

namespace qwenbench::comm {

class P2pGroup {
 public:
  ~P2pGroup();

  /// A collective call: allocates this rank's part on the current device, opens the way to the peers, and returns the
  /// one group that all ranks share.
  static std::shared_ptr<P2pGroup> join(Communicator& host, long long slot_bytes);

  /// What rank `rank`'s kernels are given; limits and times are the caller's to fill in.
  kernels::PeerExchange exchange_of(int rank) const;
  /// Of all devices of the group: the most ranks that share one, and the fewest multiprocessors that one has.
  int most_ranks_on_a_device() const;
  int fewest_processors() const;

  /// Every kernel stops waiting.
  void abort();
  bool gave_up(int rank, kernels::GaveUp reason) const;
  /// A rank whose kernels waited for too long; -1: none.
  int timed_out_rank() const;

  /// That rank `rank`'s kernels have spent here so far; waits for no stream.
  double seconds(int rank) const;

 private:
  struct RankMemory {
    int device = -1, processors = 0;
    std::byte* staging = nullptr;
    std::byte* quads = nullptr;
    kernels::ExchangeState* state = nullptr;
  };

  P2pGroup(int ranks, long long slot_bytes);
  void allocate(int rank);
  void open_peers(int rank) const;
  std::uint32_t* gave_up_flag(int rank) const;

  std::vector<RankMemory> memory_;
  long long slot_bytes_;
  std::uint32_t* flags_ = nullptr;  // [0]: abort; then one cache line a rank
};

}  // namespace qwenbench::comm
