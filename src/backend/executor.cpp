#include <stdexcept>

#include "backend/backend.h"

namespace qwenbench::backend {

void Executor::greedy(std::span<std::int32_t>) { throw std::logic_error("this backend does not reduce logits"); }

void Executor::compare(std::span<const float>, std::span<const float>, std::span<const std::int32_t>,
                       std::span<TokenScore>) {
  throw std::logic_error("this backend does not reduce logits");
}

}  // namespace qwenbench::backend
