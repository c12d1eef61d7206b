// A backend without a model. Each slot of its cache remembers what was stored; the hidden state of a token is a hash
// over the whole history as it is read back through the block table. So a wrong table, position, picture or a block
// that was overwritten changes the tokens. predict() says what they must be, from the request alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"
#include "engine/model.h"
#include "engine/pictures.h"
#include "engine/sampler.h"
#include "engine/session.h"

namespace qwenbench::engine::fake {

inline constexpr int kVocabulary = 40, kHidden = 4;
inline constexpr std::int32_t kImagePad = 39, kEndOfText = 38;

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

/// What the cache stores of one token.
inline std::uint64_t slot_content(std::int32_t token, const std::array<std::int32_t, 3>& position,
                                  std::uint64_t visual) {
  std::uint64_t content = mix(static_cast<std::uint64_t>(token) ^ mix(visual));
  for (const std::int32_t axis : position) content = mix(content ^ static_cast<std::uint64_t>(axis));
  return content;
}

inline std::uint64_t visual_content(const std::string& sha256, int feature) {
  return mix(std::hash<std::string>{}(sha256) + static_cast<std::uint64_t>(feature)) | 1u;
}

inline std::vector<float> hidden_state(std::uint64_t history) {
  std::vector<float> hidden;
  for (int i = 0; i < kHidden; ++i) hidden.push_back(static_cast<float>((history >> (16 * i)) & 0xffffu));
  return hidden;
}

inline std::vector<float> logits_of(std::span<const float> hidden) {
  std::uint64_t history = 0;
  for (int i = 0; i < kHidden; ++i) history |= static_cast<std::uint64_t>(hidden[i]) << (16 * i);
  std::vector<float> logits;
  for (int token = 0; token < kVocabulary; ++token) {
    logits.push_back(static_cast<float>(mix(history + static_cast<std::uint64_t>(token)) >> 40) * 0x1p-22f);
  }
  return logits;
}

class FakeCache final : public backend::KvCache {
 public:
  explicit FakeCache(const backend::KvCacheOptions& options)
      : block_size(options.block_size), slots(static_cast<std::size_t>(options.num_blocks) * options.block_size) {}
  std::vector<std::byte> stored(int, std::int64_t, int, bool) const override { return {}; }

  std::uint64_t& at(std::span<const std::int32_t> blocks, int token) {
    const auto entry = static_cast<std::size_t>(token / block_size);
    if (entry >= blocks.size()) throw std::logic_error("block table too short");
    return slots.at(static_cast<std::size_t>(blocks[entry]) * block_size + token % block_size);
  }
  int block_size;
  std::vector<std::uint64_t> slots;
};

struct FakeFeatures final : backend::VisualFeatures {
  std::string sha256;
};

/// What happened, seen by all ranks' executors of one test; rank 0 writes.
struct Log {
  std::map<std::string, int> encoded;  // by picture
  int steps = 0;
  int fail_rank = -1, fail_step = -1;  // this rank throws in this step
};

class FakeExecutor final : public backend::Executor {
 public:
  FakeExecutor(std::shared_ptr<comm::Communicator> communicator, std::shared_ptr<Log> log)
      : communicator_(std::move(communicator)), log_(std::move(log)) {}

  std::unique_ptr<backend::KvCache> make_cache(const backend::KvCacheOptions& options) override {
    return std::make_unique<FakeCache>(options);
  }

  std::shared_ptr<const backend::VisualFeatures> encode(const workload::Image& image) override {
    communicator_->barrier();
    if (communicator_->rank() == 0) ++log_->encoded[image.sha256];
    auto features = std::make_shared<FakeFeatures>();
    features->sha256 = image.sha256;
    return features;
  }

  void execute(const backend::StepInput& step, backend::KvCache& cache,
               std::span<const std::shared_ptr<const backend::VisualFeatures>> pictures) override {
    const int step_number = step_++;
    if (communicator_->rank() == 0) log_->steps = step_;
    if (communicator_->rank() == log_->fail_rank && step_number == log_->fail_step)
      throw DeviceError("injected failure");
    if (!std::is_sorted(step.output_rows.begin(), step.output_rows.end()))
      throw std::logic_error("output rows do not ascend");
    std::vector<std::uint64_t> visual(step.tokens.size());
    for (const auto& span : step.visual) {
      const auto& features = dynamic_cast<const FakeFeatures&>(*pictures[span.picture]);
      for (int i = 0; i < span.num_rows; ++i) {
        visual.at(span.first_row + i) = visual_content(features.sha256, span.first_feature + i);
      }
    }
    history_.assign(step.tokens.size(), 0);
    for (const auto& sequence : step.sequences) run(step, sequence, visual, dynamic_cast<FakeCache&>(cache));
    hidden_.clear();
    for (const int row : step.output_rows) {
      const auto hidden = hidden_state(history_.at(row));
      hidden_.insert(hidden_.end(), hidden.begin(), hidden.end());
    }
    float ranks = 1;
    communicator_->all_reduce({&ranks, 1});
  }

  void read_hidden(std::span<float> out) override {
    if (out.size() != hidden_.size()) throw std::logic_error("read_hidden: wrong size");
    std::copy(hidden_.begin(), hidden_.end(), out.begin());
  }

  void logits(std::span<const float> hidden, int rows, std::span<float> out) override {
    communicator_->barrier();
    if (out.empty()) return;
    for (int row = 0; row < rows; ++row) {
      const auto values = logits_of(hidden.subspan(row * kHidden, kHidden));
      std::copy(values.begin(), values.end(), out.begin() + row * kVocabulary);
    }
  }

  std::size_t weight_bytes() const override { return 100; }

 private:
  void run(const backend::StepInput& step, const backend::StepInput::Sequence& sequence,
           const std::vector<std::uint64_t>& visual, FakeCache& cache) {
    const int first = sequence.kv_length - sequence.num_rows;
    for (int i = 0; i < sequence.num_rows; ++i) {
      const int row = sequence.first_row + i;
      cache.at(sequence.blocks, first + i) = slot_content(step.tokens[row], step.positions[row], visual[row]);
    }
    std::uint64_t history = 0;
    for (int token = 0; token < sequence.kv_length; ++token) {
      history = mix(history ^ cache.at(sequence.blocks, token));
      if (token >= first) history_.at(sequence.first_row + token - first) = history;
    }
  }

  std::shared_ptr<comm::Communicator> communicator_;
  std::shared_ptr<Log> log_;
  std::vector<std::uint64_t> history_;
  std::vector<float> hidden_;
  int step_ = 0;
};

inline model::ModelConfig config(int max_positions = 200) {
  model::ModelConfig config;
  config.text.hidden_size = kHidden;
  config.text.vocab_size = kVocabulary;
  config.text.max_position_embeddings = max_positions;
  config.vision.in_channels = 1;
  config.vision.patch_size = 1;
  config.vision.temporal_patch_size = 1;
  config.image_token_id = kImagePad;
  config.generation.eos_token_ids = {kEndOfText};
  return config;
}

inline std::shared_ptr<Model> make_model(int ranks = 1, std::shared_ptr<Log> log = std::make_shared<Log>()) {
  std::vector<std::shared_ptr<comm::Communicator>> communicators;
  for (auto& communicator : comm::make_threads(ranks)) communicators.push_back(std::move(communicator));
  std::vector<std::unique_ptr<backend::Executor>> executors;
  for (const auto& communicator : communicators) executors.push_back(std::make_unique<FakeExecutor>(communicator, log));
  return Model::from_executors(config(), std::move(executors), std::move(communicators), ranks);
}

inline std::shared_ptr<const workload::Image> picture(int grid_h, int grid_w, const std::string& name) {
  auto image = std::make_shared<workload::Image>();
  image->grid_h = grid_h;
  image->grid_w = grid_w;
  image->pixel_values.resize(static_cast<std::size_t>(grid_h) * grid_w);
  image->sha256 = name;
  return image;
}

/// History hashes after each of `tokens`, which begin with the request's prompt.
inline std::vector<std::uint64_t> histories(const workload::Request& request, const std::vector<std::int32_t>& tokens) {
  const auto pictures = find_pictures(request.prompt, request.images, config(), "test");
  const RopePositions positions(static_cast<int>(request.prompt.size()), pictures);
  std::vector<std::uint64_t> visual(tokens.size());
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    for (int pad = 0; pad < pictures[i].count; ++pad) {
      visual[pictures[i].first + pad] = visual_content(request.images[i]->sha256, pad);
    }
  }
  std::vector<std::uint64_t> result;
  std::uint64_t history = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    history = mix(history ^ slot_content(tokens[i], positions.at(static_cast<int>(i)), visual[i]));
    result.push_back(history);
  }
  return result;
}

/// The tokens that a request must get, computed alone.
inline std::vector<std::int32_t> predict(const workload::Request& request, int max_model_len) {
  std::vector<std::int32_t> tokens = request.prompt, output;
  while (static_cast<int>(output.size()) < request.max_tokens) {
    const auto logits = logits_of(hidden_state(histories(request, tokens).back()));
    const std::int32_t token = sample(logits, request.sampling, static_cast<int>(output.size()));
    output.push_back(token);
    tokens.push_back(token);
    const bool stop = std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end();
    if ((token == kEndOfText || stop) && !request.ignore_eos) break;
    if (static_cast<int>(tokens.size()) >= max_model_len) break;
  }
  return output;
}

/// The hidden states that a teacher-forced request must report, one after another.
inline std::vector<float> predict_scores(const workload::Request& request) {
  std::vector<std::int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), request.forced.begin(), request.forced.end());
  const auto all = histories(request, tokens);
  std::vector<float> hidden;
  for (std::size_t i = request.score_from; i < request.forced.size(); ++i) {
    const auto state = hidden_state(all[request.prompt.size() - 1 + i]);
    hidden.insert(hidden.end(), state.begin(), state.end());
  }
  return hidden;
}

}  // namespace qwenbench::engine::fake
