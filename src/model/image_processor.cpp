#include "model/image_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/sha256.h"

namespace qwenbench::model {
namespace {

void check(const ImageProcessorConfig& config) {
  const bool is_valid = config.patch_size > 0 && config.patch_size <= 1024 && config.merge_size > 0 &&
                        config.merge_size <= 64 && config.temporal_patch_size > 0 && config.temporal_patch_size <= 64 &&
                        config.min_pixels > 0 && config.min_pixels <= config.max_pixels &&
                        config.max_pixels <= kMaxImagePixels;
  if (!is_valid) {
    throw InputError(
        fmt::format("preprocessor_config.json: patch_size {}, merge_size {}, temporal_patch_size {}, size {} to {} "
                    "pixels cannot be used (at most {} pixels)",
                    config.patch_size, config.merge_size, config.temporal_patch_size, config.min_pixels,
                    config.max_pixels, kMaxImagePixels));
  }
}

/// The values of each byte after normalising, in fp32 as HF computes them.
std::array<std::array<float, 256>, 3> normalized_values(const ImageProcessorConfig& config) {
  std::array<std::array<float, 256>, 3> out{};
  for (std::size_t c = 0; c < 3; ++c) {
    const float mean = config.mean[c] * 255.0f;
    const float deviation = config.std[c] * 255.0f;
    for (int v = 0; v < 256; ++v) out[c][static_cast<std::size_t>(v)] = (static_cast<float>(v) - mean) / deviation;
  }
  return out;
}

}  // namespace

ImageSize target_size(int height, int width, const ImageProcessorConfig& config) {
  check(config);
  if (height < 1 || width < 1)
    throw InputError(fmt::format("an image of {} x {} pixels cannot be used", width, height));
  const double h = height, w = width, factor = config.patch_size * config.merge_size;
  if (std::max(h, w) / std::min(h, w) > 200) {
    throw InputError(fmt::format(
        "an image of {} x {} pixels is too narrow: the sides may differ by at most 200 to 1; crop it", width, height));
  }
  // nearbyint rounds half to even, as Python's round() does.
  double out_h = std::nearbyint(h / factor) * factor;
  double out_w = std::nearbyint(w / factor) * factor;
  const auto min_pixels = static_cast<double>(config.min_pixels);
  const auto max_pixels = static_cast<double>(config.max_pixels);
  if (out_h * out_w > max_pixels) {
    const double beta = std::sqrt(h * w / max_pixels);
    out_h = std::max(factor, std::floor(h / beta / factor) * factor);
    out_w = std::max(factor, std::floor(w / beta / factor) * factor);
  } else if (out_h * out_w < min_pixels) {
    const double beta = std::sqrt(min_pixels / (h * w));
    out_h = std::ceil(h * beta / factor) * factor;
    out_w = std::ceil(w * beta / factor) * factor;
  }
  ImageSize out;
  out.height = static_cast<int>(out_h);
  out.width = static_cast<int>(out_w);
  out.grid_h = out.height / config.patch_size;
  out.grid_w = out.width / config.patch_size;
  out.pads = (out.grid_h / config.merge_size) * (out.grid_w / config.merge_size);
  return out;
}

ProcessedImage process_image(const RgbImage& image, const ImageProcessorConfig& config) {
  const ImageSize size = target_size(image.height, image.width, config);
  const bool is_resized = size.height != image.height || size.width != image.width;
  const RgbImage resized = is_resized ? resize_bicubic(image, size.height, size.width) : RgbImage{};
  const RgbImage& pixels = is_resized ? resized : image;
  const auto values = normalized_values(config);
  const int patch = config.patch_size, merge = config.merge_size;

  ProcessedImage out{size.grid_h, size.grid_w, {}};
  out.pixel_values.reserve(static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 3 *
                           static_cast<std::size_t>(config.temporal_patch_size));
  const auto append_patch = [&](int patch_y, int patch_x) {
    for (std::size_t c = 0; c < 3; ++c) {
      for (int t = 0; t < config.temporal_patch_size; ++t) {  // a still image is the same at every time
        for (int y = patch_y * patch; y < (patch_y + 1) * patch; ++y) {
          const std::size_t row = static_cast<std::size_t>(y) * static_cast<std::size_t>(pixels.width);
          for (int x = patch_x * patch; x < (patch_x + 1) * patch; ++x) {
            out.pixel_values.push_back(values[c][pixels.rgb[(row + static_cast<std::size_t>(x)) * 3 + c]]);
          }
        }
      }
    }
  };
  for (int block_y = 0; block_y < size.grid_h; block_y += merge) {
    for (int block_x = 0; block_x < size.grid_w; block_x += merge) {
      for (int in_y = 0; in_y < merge; ++in_y) {
        for (int in_x = 0; in_x < merge; ++in_x) append_patch(block_y + in_y, block_x + in_x);
      }
    }
  }
  return out;
}

std::string content_hash(const ProcessedImage& image) {
  const std::array<std::int32_t, 2> grid{image.grid_h, image.grid_w};
  return Sha256()
      .update(grid.data(), sizeof(grid))
      .update(image.pixel_values.data(), image.pixel_values.size() * sizeof(float))
      .hex();
}

}  // namespace qwenbench::model
