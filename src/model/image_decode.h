// PNG and JPEG files to 8-bit RGB, as Pillow's exif_transpose() and convert("RGB") give it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace qwenbench::model {

/// Interleaved 8-bit RGB, rows from top to bottom: rgb[(y * width + x) * 3 + channel].
struct RgbImage {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;
};

/// Images of more pixels are refused before anything is decoded.
inline constexpr std::int64_t kMaxImagePixels = 100'000'000;

/// Palettes, grey, 16 bits, CMYK and interlacing are converted, alpha is dropped, the EXIF (or else XMP) orientation is
/// applied. Of 16 bits the high byte counts; grey without alpha is cut at 255 instead, as Pillow does. Throws
/// InputError, naming the image and what to do, where it is neither PNG nor JPEG, truncated or damaged, or above
/// kMaxImagePixels. Memory: the decoded image, and for a progressive JPEG its coefficients (up to 8 bytes a pixel).
RgbImage decode_image(std::span<const std::byte> file, const std::string& name);

/// decode_image of a file.
RgbImage read_image(const std::filesystem::path& path);

/// A picture for synthetic requests: smooth gradients with noise; the same for the same arguments on every machine.
RgbImage random_image(int width, int height, std::uint64_t seed);

}  // namespace qwenbench::model
