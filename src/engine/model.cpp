#include "engine/model.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"

namespace qwenbench::engine {

struct Model::State {
  model::ModelConfig config;
  std::vector<std::shared_ptr<comm::Communicator>> communicators;
  std::vector<std::unique_ptr<backend::Executor>> executors;
  int threads = 0;
  MemoryPlan memory;
  ThreadPool pool;  // one thread a rank; rank 0 is the caller
  std::mutex mutex;
  std::exception_ptr first_error;
  bool failed = false;

  explicit State(int ranks) : pool(ranks) {}

  /// Keeps the first error; the ones that follow from it on other ranks say less.
  void fail(std::exception_ptr error) {
    {
      std::lock_guard lock(mutex);
      if (!first_error) first_error = error;
    }
    for (auto& communicator : communicators) communicator->abort();
  }
};

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

std::shared_ptr<Model> Model::from_executors(const model::ModelConfig& config,
                                             std::vector<std::unique_ptr<backend::Executor>> executors,
                                             std::vector<std::shared_ptr<comm::Communicator>> communicators,
                                             int threads) {
  if (executors.empty() || executors.size() != communicators.size()) {
    throw std::invalid_argument("a model needs as many executors as communicators, and at least one");
  }
  auto state = std::make_unique<State>(static_cast<int>(executors.size()));
  state->config = config;
  state->communicators = std::move(communicators);
  state->executors = std::move(executors);
  state->threads = threads;
  return std::shared_ptr<Model>(new Model(std::move(state)));
}

const model::ModelConfig& Model::config() const { return state_->config; }
bool Model::has_fp8_attention() const { return state_->executors.front()->has_fp8_attention(); }
int Model::ranks() const { return static_cast<int>(state_->executors.size()); }
int Model::threads() const { return state_->threads; }
std::size_t Model::weight_bytes(int rank) const { return state_->executors.at(rank)->weight_bytes(); }

std::size_t Model::decode_weight_bytes() const {
  std::size_t bytes = 0;
  for (const auto& executor : state_->executors) bytes += executor->decode_weight_bytes();
  return bytes;
}

std::optional<double> Model::read_bandwidth() const {
  std::optional<double> slowest;
  for (const auto& executor : state_->executors) {
    const auto mine = executor->read_bandwidth();
    if (!mine) return std::nullopt;
    slowest = slowest ? std::min(*slowest, *mine) : *mine;
  }
  return *slowest * ranks();
}

const MemoryPlan& Model::memory() const { return state_->memory; }
void Model::set_memory(const MemoryPlan& memory) { state_->memory = memory; }

std::string Model::communicator() const { return state_->executors.front()->communicator(); }

std::vector<double> Model::collective_seconds() {
  if (communicator().empty()) return {};
  std::vector<std::optional<double>> measured(static_cast<std::size_t>(ranks()));
  run([&](backend::Executor& executor, int rank) { measured[rank] = executor.collective_seconds(); });
  std::vector<double> seconds;
  for (const auto& rank : measured) {
    if (!rank) return {};
    seconds.push_back(*rank);
  }
  return seconds;
}

void Model::run(const std::function<void(backend::Executor& executor, int rank)>& fn) {
  State& state = *state_;
  if (state.failed) throw DeviceError("the model cannot be used any more after an earlier failure; load it again");
  state.pool.run([&](int rank) {
    try {
      fn(*state.executors[rank], rank);
    } catch (...) {
      state.fail(std::current_exception());
    }
  });
  if (state.first_error) {
    state.failed = true;
    std::rethrow_exception(std::exchange(state.first_error, nullptr));
  }
}

std::vector<float> Model::logits(std::span<const float> hidden, int rows) {
  std::vector<float> logits(static_cast<std::size_t>(rows) * config().text.vocab_size);
  if (rows == 0) return logits;
  run([&](backend::Executor& executor, int rank) {
    executor.logits(hidden, rows, rank == 0 ? std::span<float>(logits) : std::span<float>());
  });
  return logits;
}

bool Model::compare(std::span<const float> reference, std::span<const float> variant,
                    std::span<const std::int32_t> targets, std::span<backend::TokenScore> out) {
  if (!state_->executors.front()->reduces_logits()) return false;
  run([&](backend::Executor& executor, int rank) {
    if (rank == 0) return executor.compare(reference, variant, targets, out);
    std::vector<backend::TokenScore> same(out.size());
    executor.compare(reference, variant, targets, same);
  });
  return true;
}

}  // namespace qwenbench::engine
