#include <algorithm>
#include <exception>
#include <mutex>
#include <new>

#include "base/error.h"
#include "base/thread_pool.h"
#include "base/wsl.h"
#include "comm/communicator.h"
#include "engine/memory_plan.h"
#include "engine/model.h"
#include "graph/plan.h"

namespace qwenbench::engine {
namespace {

using Executors = std::vector<std::unique_ptr<backend::Executor>>;
using Communicators = std::vector<std::shared_ptr<comm::Communicator>>;

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
                         bool cuda, backend::ExecutorOptions options) {
  Executors executors(communicators.size());
  std::mutex mutex;
  std::exception_ptr first_error;
  ThreadPool pool(static_cast<int>(communicators.size()));
  pool.run([&](int rank) {
    try {
      backend::ExecutorOptions mine = options;
      mine.rank = rank;
      mine.device = rank;
      const auto make = cuda ? backend::make_cuda_executor : backend::make_cpu_executor;
      executors[rank] = make(plan, source, communicators[rank], mine);
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
  const DeviceMemory devices = available_devices(options);
  const int ranks = options.tensor_parallel_size;
  const graph::Plan plan = graph::build_plan(source.config(), ranks);
  const MemoryPlan memory = plan_memory(source.config(), options, devices);
  if (memory.is_gpu) require_fits(memory, memory.capacities.front());  // the smallest cache: before anything is read
  const int cores = options.cpu_threads > 0 ? options.cpu_threads : available_cores();
  const int threads = std::max(1, cores / ranks);
  auto communicators = make_communicators(ranks);
  backend::ExecutorOptions executor;
  executor.threads = threads;
  executor.engine = options;
  if (options.pin_memory == profile::Switch::kAuto)
    executor.engine.pin_memory = running_under_wsl() ? profile::Switch::kOff : profile::Switch::kOn;
  executor.on_loaded = on_loaded;
  try {
    auto executors = load_executors(plan, source, communicators, devices.is_gpu, executor);
    auto model = from_executors(source.config(), std::move(executors), std::move(communicators), threads * ranks);
    model->set_memory(memory);
    return model;
  } catch (const std::bad_alloc&) {
    throw DeviceError("not enough memory for the model's weights; use a smaller or a quantized checkpoint");
  }
}

}  // namespace qwenbench::engine
