// Inside of image_decode: the two formats, and orientation.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model/image_decode.h"

namespace qwenbench::model {

/// What was decoded, before it is turned upright.
struct DecodedImage {
  RgbImage image;
  int orientation = 1;  // EXIF: 1 (upright) to 8
};

/// Both throw InputError that begins with `name`.
DecodedImage decode_png(std::span<const std::byte> file, const std::string& name);
DecodedImage decode_jpeg(std::span<const std::byte> file, const std::string& name);

/// Throws InputError where an image of this size is refused.
void require_decodable_size(std::int64_t width, std::int64_t height, const std::string& name);

/// Orientation tag (0x0112) of IFD0 in a TIFF block, with or without the "Exif\0\0" before it; none where it is missing
/// or the block is damaged.
std::optional<int> exif_orientation(std::span<const std::byte> exif);
/// tiff:Orientation in XMP, which Pillow asks where EXIF has none.
std::optional<int> xmp_orientation(std::string_view xmp);

/// The image turned and mirrored as EXIF orientation 1 to 8 says; others leave it as it is.
RgbImage turn_upright(RgbImage image, int orientation);

}  // namespace qwenbench::model
