// What a build without the CUDA toolkit links.
#include "backend/backend.h"
#include "backend/devices.h"
#include "base/error.h"

namespace qwenbench::backend {

GpuSystem describe_gpus() { return {}; }

std::optional<CopyBandwidth> measure_copy_bandwidth() { return std::nullopt; }

GpuActivity read_gpu_activity(std::span<const GpuInfo>) { return {}; }

std::unique_ptr<Executor> make_cuda_executor(const graph::Plan&, const model::WeightSource&,
                                             std::shared_ptr<comm::Communicator>,  // NOLINT: as the real one takes it
                                             const ExecutorOptions&) {
  throw DeviceError(
      "this build has no CUDA backend: configure with --preset cuda where nvcc is found, or set engine.device to "
      "\"cpu\"");
}

}  // namespace qwenbench::backend
