#include <algorithm>
#include <exception>
#include <mutex>
#include <new>

#include "base/error.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "engine/model.h"
#include "graph/plan.h"

namespace qwenbench::engine {
namespace {

using Executors = std::vector<std::unique_ptr<backend::Executor>>;
using Communicators = std::vector<std::shared_ptr<comm::Communicator>>;

void require_cpu(profile::Device device) {
  if (device == profile::Device::kCuda) {
    throw DeviceError(
        "this build has no CUDA backend: configure with --preset cuda where nvcc is found, or set "
        "engine.device to \"cpu\"");
  }
}

Communicators make_communicators(int ranks) {
  Communicators communicators;
  if (ranks == 1) {
    communicators.push_back(comm::make_single());
  } else {
    for (auto& communicator : comm::make_threads(ranks)) communicators.push_back(std::move(communicator));
  }
  return communicators;
}

/// All ranks load at the same time. The first error ends it: the others stop at their next collective, or when done.
Executors load_executors(const graph::Plan& plan, const model::WeightSource& source, const Communicators& communicators,
                         int threads, const std::function<void(std::size_t)>& on_loaded) {
  Executors executors(communicators.size());
  std::mutex mutex;
  std::exception_ptr first_error;
  ThreadPool pool(static_cast<int>(communicators.size()));
  pool.run([&](int rank) {
    try {
      executors[rank] = backend::make_cpu_executor(plan, source, communicators[rank], {rank, threads, on_loaded});
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!first_error) first_error = std::current_exception();
      for (const auto& communicator : communicators) communicator->abort();
    }
  });
  if (first_error) std::rethrow_exception(first_error);
  return executors;
}

}  // namespace

std::shared_ptr<Model> Model::load(const model::WeightSource& source, const profile::EngineOptions& options,
                                   const std::function<void(std::size_t bytes)>& on_loaded) {
  require_cpu(options.device);
  const int ranks = options.tensor_parallel_size;
  const graph::Plan plan = graph::build_plan(source.config(), ranks);
  const int cores = options.cpu_threads > 0 ? options.cpu_threads : available_cores();
  const int threads = std::max(1, cores / ranks);
  auto communicators = make_communicators(ranks);
  try {
    auto executors = load_executors(plan, source, communicators, threads, on_loaded);
    return from_executors(source.config(), std::move(executors), std::move(communicators), threads * ranks);
  } catch (const std::bad_alloc&) {
    throw DeviceError("not enough memory for the model's weights; use a smaller or a quantized checkpoint");
  }
}

}  // namespace qwenbench::engine
