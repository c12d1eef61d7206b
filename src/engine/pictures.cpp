#include "engine/pictures.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace qwenbench::engine {
namespace {

PictureSpan checked_span(const workload::Image& image, const model::VisionConfig& vision, const std::string& who) {
  const int merge = vision.spatial_merge_size;
  if (image.grid_h <= 0 || image.grid_w <= 0 || image.grid_h % merge != 0 || image.grid_w % merge != 0) {
    throw InputError(fmt::format("{}: a picture has a grid of {} x {} patches; both sides must be multiples of {}", who,
                                 image.grid_h, image.grid_w, merge));
  }
  const std::int64_t patches = static_cast<std::int64_t>(image.grid_h) * image.grid_w;
  if (static_cast<std::int64_t>(image.pixel_values.size()) != patches * vision.patch_dim()) {
    throw InputError(fmt::format("{}: a picture of {} x {} patches has {} pixel values, but the model takes {}", who,
                                 image.grid_h, image.grid_w, image.pixel_values.size(), patches * vision.patch_dim()));
  }
  return {0, static_cast<int>(patches / vision.merge_unit()), image.grid_h / merge, image.grid_w / merge};
}

}  // namespace

std::vector<PictureSpan> find_pictures(std::span<const std::int32_t> prompt,
                                       std::span<const std::shared_ptr<const workload::Image>> images,
                                       const model::ModelConfig& config, const std::string& who) {
  std::vector<PictureSpan> spans;
  const int length = static_cast<int>(prompt.size());
  for (int token = 0; token < length; ++token) {
    if (prompt[token] != config.image_token_id) continue;
    if (spans.size() == images.size()) {
      throw InputError(
          fmt::format("{}: the prompt has image pads beyond its {} pictures (at token {})", who, images.size(), token));
    }
    PictureSpan span = checked_span(*images[spans.size()], config.vision, who);
    span.first = token;
    const auto pads = prompt.subspan(token, std::min(span.count, length - token));
    const auto is_pad = [&](std::int32_t id) { return id == config.image_token_id; };
    if (static_cast<int>(pads.size()) < span.count || !std::all_of(pads.begin(), pads.end(), is_pad)) {
      throw InputError(fmt::format("{}: picture {} needs {} image pads in a row from token {} on", who,
                                   spans.size() + 1, span.count, token));
    }
    spans.push_back(span);
    token += span.count - 1;
  }
  if (spans.size() < images.size()) {
    throw InputError(
        fmt::format("{}: the prompt has pads for {} of its {} pictures", who, spans.size(), images.size()));
  }
  return spans;
}

RopePositions::RopePositions(int prompt_length, std::span<const PictureSpan> pictures) {
  prompt_.reserve(prompt_length);
  std::int32_t next = 0;
  const auto text_until = [&](int token) {
    for (; static_cast<int>(prompt_.size()) < token; ++next) prompt_.push_back({next, next, next});
  };
  for (const auto& picture : pictures) {
    text_until(picture.first);
    for (int pad = 0; pad < picture.count; ++pad) {
      prompt_.push_back({next, next + pad / picture.grid_w, next + pad % picture.grid_w});
    }
    next += std::max(picture.grid_h, picture.grid_w);
  }
  text_until(prompt_length);
  delta_ = next - prompt_length;
}

}  // namespace qwenbench::engine
