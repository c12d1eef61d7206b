// From RGB pixels to the rows that the vision tower reads: what HF's Qwen2VLImageProcessorFast computes for Qwen3-VL.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/image_decode.h"

namespace qwenbench::model {

/// The size that an image is resized to, and what follows from it.
struct ImageSize {
  int height = 0;  // pixels, multiples of patch_size * merge_size
  int width = 0;
  int grid_h = 0;  // patches
  int grid_w = 0;
  int pads = 0;  // <|image_pad|> tokens: grid_h * grid_w / merge_size^2
};

/// One image, ready for the vision tower.
struct ProcessedImage {
  int grid_h = 0;  // patches
  int grid_w = 0;
  /// [grid_h * grid_w, 3 * temporal_patch_size * patch_size^2], row-major. Rows in merge-block order
  /// (grid_h/2, grid_w/2, 2, 2), columns (channel, time, y, x); values (x - 255 mean) / (255 std).
  std::vector<float> pixel_values;
};

/// HF's smart_resize: both sides to multiples of the factor, the area into [min_pixels, max_pixels]. From the size
/// alone. Throws InputError where the sides differ by more than 200 to 1 or are not positive.
ImageSize target_size(int height, int width, const ImageProcessorConfig& config);

/// Bicubic (a = -0.5) with antialiasing on uint8, in torchvision's fixed-point arithmetic (equal to it): along the rows
/// first, then along the columns, each pass rounded and cut to 0..255. Pillow differs by 1, and in noise by more where
/// it takes the passes in the other order.
RgbImage resize_bicubic(const RgbImage& image, int height, int width);

/// target_size, resize (skipped where the size is right already), normalise, cut into patches.
ProcessedImage process_image(const RgbImage& image, const ImageProcessorConfig& config);

/// Identity of an image's features for the prefix cache and for reports: SHA-256 over grid and pixel_values.
std::string content_hash(const ProcessedImage& image);

}  // namespace qwenbench::model
