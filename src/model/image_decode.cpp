#include "model/image_decode.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/image_codecs.h"

namespace qwenbench::model {
namespace {

constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{1} << 30;

bool begins_with(std::span<const std::byte> file, std::string_view magic, std::size_t at = 0) {
  return file.size() >= at + magic.size() && std::memcmp(file.data() + at, magic.data(), magic.size()) == 0;
}

/// The format of a file that we do not read, for the error message.
std::string_view guess_format(std::span<const std::byte> file) {
  if (begins_with(file, "GIF8")) return "GIF";
  if (begins_with(file, "RIFF") && begins_with(file, "WEBP", 8)) return "WebP";
  if (begins_with(file, "BM")) return "BMP";
  if (begins_with(file, "II*") || begins_with(file, "MM")) return "TIFF";
  if (begins_with(file, "ftyp", 4)) return "HEIC or AVIF";
  if (begins_with(file, "%PDF")) return "PDF";
  return "unknown";
}

}  // namespace

void require_decodable_size(std::int64_t width, std::int64_t height, const std::string& name) {
  if (width < 1 || height < 1) throw InputError(fmt::format("{}: the image has no pixels; replace the file", name));
  if (width > kMaxImagePixels || height > kMaxImagePixels || width * height > kMaxImagePixels) {
    throw InputError(
        fmt::format("{}: {} x {} pixels are more than {} megapixels (a decompression bomb?); scale it down", name,
                    width, height, kMaxImagePixels / 1'000'000));
  }
}

RgbImage decode_image(std::span<const std::byte> file, const std::string& name) {
  if (file.empty()) throw InputError(name + ": the file is empty; replace it by a PNG or JPEG image");
  DecodedImage decoded;
  if (begins_with(file, "\x89PNG\r\n\x1a\n")) {
    decoded = decode_png(file, name);
  } else if (begins_with(file, "\xff\xd8\xff")) {
    decoded = decode_jpeg(file, name);
  } else {
    throw InputError(
        fmt::format("{}: is neither PNG nor JPEG (format: {}); convert it to one of them", name, guess_format(file)));
  }
  return turn_upright(std::move(decoded.image), decoded.orientation);
}

RgbImage read_image(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (!error && size > kMaxFileBytes)
    throw InputError(path.string() + ": the file is larger than 1 GiB; scale the image down");
  const std::string content = read_file(path);
  return decode_image(std::as_bytes(std::span(content.data(), content.size())), path);
}

}  // namespace qwenbench::model
