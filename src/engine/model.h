// The weights of one model, loaded once and shared by every Session: one Executor a rank, and the threads that run
// them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/memory_plan.h"
#include "model/weights.h"
#include "profile/profile.h"

namespace qwenbench::engine {

class Model {
 public:
  /// Loads and shards. `on_loaded(bytes)` reports progress. Throws InputError (a bad checkpoint) or DeviceError.
  static std::shared_ptr<Model> load(const model::WeightSource& source, const profile::EngineOptions& options,
                                     const std::function<void(std::size_t bytes)>& on_loaded = {});
  /// Ranks that exist already: executors[rank] works on communicators[rank]; `threads` are their CPU threads together.
  static std::shared_ptr<Model> from_executors(const model::ModelConfig& config,
                                               std::vector<std::unique_ptr<backend::Executor>> executors,
                                               std::vector<std::shared_ptr<comm::Communicator>> communicators,
                                               int threads);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const model::ModelConfig& config() const;
  bool has_fp8_attention() const;
  int ranks() const;
  int threads() const;  // CPU threads over all ranks
  std::size_t weight_bytes(int rank) const;
  /// Sum over ranks of what one decode step reads of weights, and of what the devices can read a second (as many times
  /// the slowest as there are ranks; null where it is not measured).
  std::size_t decode_weight_bytes() const;
  std::optional<double> read_bandwidth() const;
  /// What load() planned; without it (from_executors) a CPU's, with no KV memory.
  const MemoryPlan& memory() const;
  /// How sums go from GPU to GPU: "p2p", "nccl" or "host"; "" for one rank, and on a CPU.
  std::string communicator() const;
  /// Seconds that each rank has spent in collectives since it was loaded; empty where that is not measured.
  std::vector<double> collective_seconds();

  /// Runs fn(executor, rank) on every rank's own thread and waits. If one throws, the others are released (abort) and
  /// the first error is rethrown; the model is then unusable.
  void run(const std::function<void(backend::Executor& executor, int rank)>& fn);

  /// hidden [rows, hidden_size] -> logits [rows, vocab_size], fp32.
  std::vector<float> logits(std::span<const float> hidden, int rows);

  /// One score for each row of both models' hidden states [rows, hidden_size], computed where the logits are. False
  /// where this backend leaves that to the caller.
  bool compare(std::span<const float> reference, std::span<const float> variant, std::span<const std::int32_t> targets,
               std::span<backend::TokenScore> out);

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  void set_memory(const MemoryPlan& memory);
  std::unique_ptr<State> state_;
};

}  // namespace qwenbench::engine
