#include "comm/cuda/choose.h"

#include <fmt/format.h>

#include <set>
#include <stdexcept>

#include "base/cuda_check.h"
#include "kernels/all_reduce.h"

namespace qwenbench::comm {
namespace {

/// "" where every device can reach every other.
std::string without_peer_access(std::span<const int> devices) {
  if (devices.size() > kernels::kMaxRanks)
    return fmt::format("{} GPUs are more than p2p joins ({})", devices.size(), kernels::kMaxRanks);
  for (const int from : devices) {
    for (const int to : devices) {
      int can = from == to;
      if (from != to) QWENBENCH_CUDA(cudaDeviceCanAccessPeer(&can, from, to));
      if (!can) return fmt::format("GPU {} has no peer access to GPU {}", from, to);
    }
  }
  return "";
}

bool are_shared(std::span<const int> devices) {
  return std::set<int>(devices.begin(), devices.end()).size() < devices.size();
}

/// "" where NCCL can join them.
std::string without_nccl(std::span<const int> devices) {
  if (!has_nccl()) return "this build has no NCCL";
  if (are_shared(devices)) return "NCCL wants a GPU for every rank";
  return "";
}

}  // namespace

AllReduceChoice choose_all_reduce(const std::string& wanted, std::span<const int> devices) {
  const std::string no_peers = without_peer_access(devices), no_nccl = without_nccl(devices);
  const bool peers = no_peers.empty();
  if (devices.size() < 2) return {AllReduce::kNone, true, "one rank"};
  if (wanted == "nccl") {
    if (!no_nccl.empty()) throw DeviceError(no_nccl + "; set engine.all_reduce to auto");
    return {AllReduce::kNccl, peers, "engine.all_reduce is nccl"};
  }
  if (wanted == "p2p") {
    if (!peers) throw DeviceError(no_peers + "; set engine.all_reduce to auto");
    return {AllReduce::kP2p, true, "engine.all_reduce is p2p"};
  }
  if (wanted == "host") return {AllReduce::kHost, peers, "engine.all_reduce is host"};
  if (wanted != "auto") throw std::invalid_argument("all_reduce must be auto, p2p, nccl or host, not " + wanted);
  if (are_shared(devices)) return {AllReduce::kHost, peers, "ranks share a GPU"};
  if (peers) return {AllReduce::kP2p, true, "every GPU has peer access to every other"};
  if (!no_nccl.empty()) {
    throw DeviceError(no_peers + ", and " + no_nccl +
                      "; install NCCL, set engine.all_reduce to host (slow), or engine.tensor_parallel_size to 1");
  }
  return {AllReduce::kNccl, false, no_peers};
}

std::unique_ptr<DeviceCommunicator> make_device_communicator(AllReduce kind, std::shared_ptr<Communicator> host,
                                                             const DeviceCommunicatorOptions& options) {
  if (kind == AllReduce::kNone) throw std::invalid_argument("one rank alone needs no communicator");
  if (kind == AllReduce::kHost) return make_host(std::move(host));
  return kind == AllReduce::kP2p ? make_p2p(std::move(host), options) : make_nccl(std::move(host), options);
}

}  // namespace qwenbench::comm
