// Which communicator joins the GPUs of a model.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "comm/cuda/device_communicator.h"

namespace qwenbench::comm {

enum class AllReduce { kNone, kP2p, kNccl, kHost };

struct AllReduceChoice {
  AllReduce kind = AllReduce::kNone;
  bool peer_access = false;  // between all the devices; one device reaches itself
  std::string why;           // for a warning or a log: "no peer access between GPU 0 and GPU 1"
};

/// `wanted` is engine.all_reduce: auto | p2p | nccl | host; auto never takes the slow way through the host, except
/// where ranks share a device (there nothing else is sure to make progress). devices[rank] is the CUDA device of a
/// rank. Throws DeviceError where what is wanted, or anything that would do, is not to be had.
AllReduceChoice choose_all_reduce(const std::string& wanted, std::span<const int> devices);

/// A collective call, with this rank's device current. `kind` is not kNone.
std::unique_ptr<DeviceCommunicator> make_device_communicator(AllReduce kind, std::shared_ptr<Communicator> host,
                                                             const DeviceCommunicatorOptions& options = {});

}  // namespace qwenbench::comm
