#include "workload/limits.h"

#include <fmt/format.h>

#include "base/error.h"
#include "workload/workload.h"

namespace qwenbench::workload {

void check_limits(const Request& request, const std::string& where, const profile::EngineOptions& engine,
                  int max_model_len) {
  const auto fail = [&](const std::string& what) {
    throw InputError(fmt::format("{}: request {}: {}", where, one_line(request.id, 80), what));
  };
  if (request.prompt.empty()) fail("the prompt is empty");
  const std::size_t follows =
      request.forced.empty() ? static_cast<std::size_t>(request.max_tokens) : request.forced.size();
  if (request.prompt.size() + follows > static_cast<std::size_t>(max_model_len)) {
    fail(fmt::format("{} prompt tokens and {} {} exceed max_model_len {}: raise engine.max_model_len or shorten it",
                     request.prompt.size(), follows, request.forced.empty() ? "max_tokens" : "scored tokens",
                     max_model_len));
  }
  const auto found = engine.limit_mm_per_prompt.find("image");
  const int limit = found == engine.limit_mm_per_prompt.end() ? 1 : found->second;  // vLLM's default
  if (request.images.size() > static_cast<std::size_t>(limit)) {
    fail(fmt::format("{} pictures exceed engine.limit_mm_per_prompt.image {}", request.images.size(), limit));
  }
}

int effective_max_model_len(const profile::EngineOptions& engine, const model::ModelConfig& config) {
  const int most = config.text.max_position_embeddings;
  if (engine.max_model_len > most) {
    throw InputError(fmt::format("engine.max_model_len {} exceeds what the model allows ({}, max_position_embeddings)",
                                 engine.max_model_len, most));
  }
  return engine.max_model_len == 0 ? most : engine.max_model_len;
}

}  // namespace qwenbench::workload
