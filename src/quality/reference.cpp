#include "quality/reference.h"

#include <algorithm>

#include "quality/scorer.h"

namespace qwenbench::quality {

HiddenReference::HiddenReference(std::span<const workload::Request> requests, std::size_t begin, int hidden_size,
                                 LogitsFunction logits)
    : begin_(begin), hidden_size_(static_cast<std::size_t>(hidden_size)), logits_(std::move(logits)) {
  hidden_.reserve(requests.size());
  for (const workload::Request& request : requests) {
    hidden_.emplace_back(static_cast<std::size_t>(scored_rows(request)) * hidden_size_);
  }
}

void HiddenReference::store(std::size_t request, int first, std::span<const float> hidden) {
  std::copy(hidden.begin(), hidden.end(),
            hidden_[request].begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(first) * hidden_size_));
}

std::span<const float> ReferenceRows::hidden(std::size_t, int, int) const { return {}; }

std::span<const float> HiddenReference::hidden(std::size_t request, int first, int rows) const {
  return std::span(hidden_[request - begin_])
      .subspan(static_cast<std::size_t>(first) * hidden_size_, static_cast<std::size_t>(rows) * hidden_size_);
}

std::vector<float> HiddenReference::logits(std::size_t request, int first, int rows) const {
  return logits_(hidden(request, first, rows), rows);
}

std::vector<std::size_t> blocks_of(std::span<const workload::Request> requests, int hidden_size,
                                   std::size_t block_bytes) {
  std::vector<std::size_t> begins{0};
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const std::size_t more =
        static_cast<std::size_t>(scored_rows(requests[i])) * static_cast<std::size_t>(hidden_size) * sizeof(float);
    if (i > begins.back() && bytes + more > block_bytes) {
      begins.push_back(i);
      bytes = 0;
    }
    bytes += more;
  }
  if (!requests.empty()) begins.push_back(requests.size());
  return begins;
}

}  // namespace qwenbench::quality
