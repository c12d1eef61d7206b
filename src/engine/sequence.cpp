#include "engine/sequence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qwenbench::engine {
namespace {

void check_tokens(std::span<const std::int32_t> tokens, int vocab_size, const std::string& who) {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= vocab_size) {
      throw InputError(fmt::format("{}: token id {} is outside the model's vocabulary of {}", who, token, vocab_size));
    }
  }
}

void check_sampling(const workload::SamplingOptions& sampling, const std::string& who) {
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    throw InputError(fmt::format("{}: temperature must be a number >= 0, not {}", who, sampling.temperature));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    throw InputError(fmt::format("{}: top_p must be in (0, 1], not {}", who, sampling.top_p));
  }
  if (sampling.top_k < 0) throw InputError(fmt::format("{}: top_k must be >= 0, not {}", who, sampling.top_k));
}

void check_request(const workload::Request& request, const model::ModelConfig& config, const std::string& who) {
  if (request.prompt.empty()) throw InputError(who + ": the prompt is empty");
  check_tokens(request.prompt, config.text.vocab_size, who);
  check_tokens(request.forced, config.text.vocab_size, who);
  if (request.forced.empty()) {
    if (request.max_tokens < 1) {
      throw InputError(fmt::format("{}: max_tokens must be at least 1, not {}", who, request.max_tokens));
    }
    check_sampling(request.sampling, who);
  } else if (request.score_from < 0 || request.score_from >= static_cast<int>(request.forced.size())) {
    throw InputError(fmt::format("{}: score_from is {}, but there are {} forced tokens", who, request.score_from,
                                 request.forced.size()));
  }
  const auto& forced = request.forced;
  if (std::find(forced.begin(), forced.end(), config.image_token_id) != forced.end()) {
    throw InputError(who + ": the forced tokens contain an image pad; pictures belong into the prompt");
  }
}

void check_limits(const Sequence& sequence, const RequestLimits& limits, const std::string& who) {
  const int length = sequence.forced() ? sequence.length() + 1 : sequence.length();
  if (length > limits.max_model_len) {
    throw InputError(fmt::format("{}: {} tokens are more than max_model_len = {}; shorten it or raise max_model_len",
                                 who, length, limits.max_model_len));
  }
  if (!limits.chunked_prefill && sequence.length() > limits.max_num_batched_tokens) {
    throw InputError(
        fmt::format("{}: {} tokens do not fit one step of max_num_batched_tokens = {}; raise it or set "
                    "enable_chunked_prefill",
                    who, sequence.length(), limits.max_num_batched_tokens));
  }
  const int blocks = blocks_for(sequence.max_length(limits.max_model_len), limits.block_size);
  if (blocks > limits.num_blocks) {
    throw InputError(
        fmt::format("{}: needs {} KV blocks of {} tokens, but there are {}; give the KV cache more memory "
                    "or lower max_tokens",
                    who, blocks, limits.block_size, limits.num_blocks));
  }
}

}  // namespace

Sequence::Sequence(RequestId sequence_id, workload::Request its_request, std::vector<PictureSpan> its_pictures)
    : id(sequence_id),
      request(std::move(its_request)),
      tokens(request.prompt),
      prompt_length(static_cast<int>(request.prompt.size())),
      pictures(std::move(its_pictures)),
      positions(prompt_length, pictures),
      features(pictures.size()),
      next_score(request.score_from) {
  if (forced()) tokens.insert(tokens.end(), request.forced.begin(), request.forced.end() - 1);
  prefill_end = length();
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    identities.push_back({pictures[i].first, pictures[i].count, request.images[i]->sha256});
  }
}

int Sequence::max_length(int max_model_len) const {
  if (forced()) return length();
  // The last token that is generated is never computed.
  const std::int64_t wanted = std::int64_t{prompt_length} + request.max_tokens;
  return static_cast<int>(std::min<std::int64_t>(wanted, std::max(max_model_len, prompt_length + 1)) - 1);
}

std::unique_ptr<Sequence> make_sequence(RequestId id, workload::Request request, const model::ModelConfig& config,
                                        const RequestLimits& limits) {
  const std::string who = request.id.empty() ? fmt::format("request {}", id) : "request " + one_line(request.id, 80);
  check_request(request, config, who);
  if (static_cast<int>(request.images.size()) > limits.max_images) {
    throw InputError(fmt::format("{}: {} pictures are more than limit_mm_per_prompt allows ({})", who,
                                 request.images.size(), limits.max_images));
  }
  auto pictures = find_pictures(request.prompt, request.images, config, who);
  auto sequence = std::make_unique<Sequence>(id, std::move(request), std::move(pictures));
  check_limits(*sequence, limits, who);
  return sequence;
}

}  // namespace qwenbench::engine
