// What variants are scored against: one row of logits for every scored position.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/token_score.h"
#include "workload/request.h"

namespace qwenbench::quality {

/// hidden [rows, hidden_size] -> logits [rows, vocab], fp32 (engine::Model::logits).
using LogitsFunction = std::function<std::vector<float>(std::span<const float> hidden, int rows)>;

/// Scores rows of both models' hidden states where the logits are computed, on the device: out [rows]. Returns false
/// where it cannot.
using CompareFunction = std::function<bool(std::span<const float> reference, std::span<const float> variant,
                                           std::span<const std::int32_t> targets, std::span<backend::TokenScore> out)>;

class ReferenceRows {
 public:
  virtual ~ReferenceRows() = default;
  /// Logits [rows, vocab] of scored rows first ... of `request` (it counts in the whole quality set).
  virtual std::vector<float> logits(std::size_t request, int first, int rows) const = 0;
  /// Their hidden states [rows, hidden_size]; empty where only logits are known.
  virtual std::span<const float> hidden(std::size_t request, int first, int rows) const;
};

/// The final hidden states of one block of requests, exact in fp32: hidden_size * 4 bytes a scored token instead of
/// vocab * 4 (20 KB instead of 600 KB at 32B). Logits are computed anew for every tile that is compared.
class HiddenReference : public ReferenceRows {
 public:
  /// Requests [begin, begin + requests.size()) of the quality set.
  HiddenReference(std::span<const workload::Request> requests, std::size_t begin, int hidden_size,
                  LogitsFunction logits);
  /// `request` counts in the block.
  void store(std::size_t request, int first, std::span<const float> hidden);
  std::vector<float> logits(std::size_t request, int first, int rows) const override;
  std::span<const float> hidden(std::size_t request, int first, int rows) const override;

 private:
  std::size_t begin_;
  std::size_t hidden_size_;
  LogitsFunction logits_;
  std::vector<std::vector<float>> hidden_;  // of each request [rows, hidden_size]
};

/// Splits the quality set into consecutive blocks whose hidden states need `block_bytes` at most (one request at
/// least): returns the first request of each block, and requests.size() at the end.
std::vector<std::size_t> blocks_of(std::span<const workload::Request> requests, int hidden_size,
                                   std::size_t block_bytes);

}  // namespace qwenbench::quality
