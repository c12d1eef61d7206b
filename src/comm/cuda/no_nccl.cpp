// Linked where the build found no NCCL.
#include "base/error.h"
#include "comm/cuda/device_communicator.h"

namespace qwenbench::comm {

std::unique_ptr<DeviceCommunicator> make_nccl(std::shared_ptr<Communicator>, const DeviceCommunicatorOptions&) {
  throw DeviceError("this build has no NCCL: install libnccl-dev and configure again, or set engine.all_reduce to p2p");
}

bool has_nccl() { return false; }

}  // namespace qwenbench::comm
