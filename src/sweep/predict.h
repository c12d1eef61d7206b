// What a cell will probably need, before it runs: memory by the engine's own plan, time by a rough model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/memory_plan.h"
#include "profile/profile.h"

namespace qwenbench::sweep {

struct Prediction {
  std::optional<engine::MemoryPlan> memory;
  std::string problem;  // why it will not run: the model is missing, it does not fit; "" where it will
  double seconds = 0;   // +- a factor of several: 2 FLOP a weight and prefilled token, all weights read a decode step
};

/// `devices`: what the cell would run on. Reads config, tokenizer and datasets; loads no weights. Never throws.
class Predictor {
 public:
  explicit Predictor(engine::DeviceMemory devices);
  ~Predictor();

  Prediction operator()(const profile::Profile& profile);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qwenbench::sweep
