#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "model/image_codecs.h"

namespace qwenbench::model {
namespace {

/// Little- or big-endian fields of a TIFF block; nothing outside the block is read.
class TiffReader {
 public:
  TiffReader(std::span<const std::byte> data, bool is_big_endian) : data_(data), is_big_endian_(is_big_endian) {}

  std::optional<std::uint32_t> field(std::size_t at, std::size_t bytes) const {
    if (at > data_.size() || bytes > data_.size() - at) return std::nullopt;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      const std::size_t position = at + (is_big_endian_ ? i : bytes - 1 - i);
      value = value << 8 | std::to_integer<std::uint32_t>(data_[position]);
    }
    return value;
  }

 private:
  std::span<const std::byte> data_;
  bool is_big_endian_;
};

}  // namespace

std::optional<int> exif_orientation(std::span<const std::byte> exif) {
  constexpr std::size_t kPrefix = 6;
  if (exif.size() >= kPrefix && std::memcmp(exif.data(), "Exif\0\0", kPrefix) == 0) exif = exif.subspan(kPrefix);
  if (exif.size() < 8) return std::nullopt;
  const bool is_big_endian = exif[0] == std::byte{'M'};
  if (!is_big_endian && exif[0] != std::byte{'I'}) return std::nullopt;
  const TiffReader tiff(exif, is_big_endian);
  const std::size_t ifd = tiff.field(4, 4).value_or(0);
  const std::uint32_t entries = tiff.field(ifd, 2).value_or(0);
  for (std::uint32_t i = 0; i < entries; ++i) {
    const std::size_t entry = ifd + 2 + std::size_t{12} * i;
    if (tiff.field(entry, 2) != 0x0112u) continue;
    const std::uint32_t type = tiff.field(entry + 2, 2).value_or(0);
    if (tiff.field(entry + 4, 4) != 1u) return std::nullopt;
    const std::size_t bytes = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0;  // BYTE, SHORT, LONG
    const std::optional<std::uint32_t> value = bytes == 0 ? std::nullopt : tiff.field(entry + 8, bytes);
    return value ? std::optional<int>(static_cast<int>(*value & 0xff)) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kTag = "tiff:Orientation";
  for (std::size_t at = xmp.find(kTag); at != std::string_view::npos; at = xmp.find(kTag, at + 1)) {
    std::string_view rest = xmp.substr(at + kTag.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with('>')) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

RgbImage turn_upright(RgbImage image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  // Where the pixel of the upright image at (x, y) lies in the stored one: mirrored, and for 5..8 with x and y swapped.
  const bool swap = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  RgbImage out{swap ? image.height : image.width, swap ? image.width : image.height, {}};
  out.rgb.resize(image.rgb.size());
  std::uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x, to += 3) {
      int from_x = swap ? y : x;
      int from_y = swap ? x : y;
      if (flip_x) from_x = image.width - 1 - from_x;
      if (flip_y) from_y = image.height - 1 - from_y;
      const std::size_t at = (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(image.width) +
                              static_cast<std::size_t>(from_x)) *
                             3;
      std::memcpy(to, image.rgb.data() + at, 3);
    }
  }
  return out;
}

}  // namespace qwenbench::model
