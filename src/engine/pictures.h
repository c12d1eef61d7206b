// Where the pictures of a prompt are, and the M-RoPE positions that follow from it. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "workload/request.h"

namespace qwenbench::engine {

/// The pads of one picture: tokens [first, first + count) of the prompt, a grid of grid_h x grid_w merged patches.
struct PictureSpan {
  int first;
  int count;
  int grid_h, grid_w;
};

/// The spans of `images` in order. Throws InputError (beginning with `who`) where the pads of the prompt do not fit
/// them: too few, too many, a picture whose pads do not stand together, a grid or pixel count that makes no picture.
std::vector<PictureSpan> find_pictures(std::span<const std::int32_t> prompt,
                                       std::span<const std::shared_ptr<const workload::Image>> images,
                                       const model::ModelConfig& config, const std::string& who);

/// T, H, W of every token of a sequence, as Hugging Face's Qwen3VLModel.get_rope_index: text counts on all three axes;
/// a picture's pads share T and count rows and columns from there; after it the count goes on at its larger side.
class RopePositions {
 public:
  RopePositions(int prompt_length, std::span<const PictureSpan> pictures);

  std::array<std::int32_t, 3> at(int token) const {
    if (token < static_cast<int>(prompt_.size())) return prompt_[token];
    const std::int32_t position = token + delta_;
    return {position, position, position};
  }
  /// Largest position + 1 - length of the prompt.
  int delta() const { return delta_; }

 private:
  std::vector<std::array<std::int32_t, 3>> prompt_;
  int delta_ = 0;
};

}  // namespace qwenbench::engine
