#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "model/image_codecs.h"

namespace qwenbench::model {
namespace {

/// libpng's state. Its errors come back by longjmp, so the functions that call setjmp own nothing with a destructor.
struct PngDecoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::byte> file;
  std::size_t at = 0;
  char message[160] = {};

  explicit PngDecoder(std::span<const std::byte> data) : file(data) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, &PngDecoder::on_error, &PngDecoder::on_warning);
    info = png ? png_create_info_struct(png) : nullptr;
    if (!info) {
      png_destroy_read_struct(&png, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~PngDecoder() { png_destroy_read_struct(&png, &info, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  [[noreturn]] static void on_error(png_structp png, png_const_charp text) {
    auto* self = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::strncpy(self->message, text, sizeof(self->message) - 1);
    png_longjmp(png, 1);
  }
  static void on_warning(png_structp, png_const_charp) {}

  static void on_read(png_structp png, png_bytep out, std::size_t size) {
    auto* self = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (size > self->file.size() - self->at) png_error(png, "the file is truncated");
    std::memcpy(out, self->file.data() + self->at, size);
    self->at += size;
  }

  bool read_header();
  bool read_rows(png_bytepp rows);
};

bool PngDecoder::read_header() {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_read_fn(png, this, &PngDecoder::on_read);
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // the area is checked apart
  // Colour profiles, texts and gamma change nothing here (as in Pillow): they are not even unpacked.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  const int color = png_get_color_type(png, info);
  const int depth = png_get_bit_depth(png, info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (color == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  const bool is_gray16 = color == PNG_COLOR_TYPE_GRAY && depth == 16;
  if (depth == 16 && !is_gray16) png_set_strip_16(png);
  if (!is_gray16 && !(color & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  return true;
}

bool PngDecoder::read_rows(png_bytepp rows) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_read_image(png, rows);
  return true;
}

/// Calls `chunk(type, data)` for each chunk that lies whole in the file.
template <class Function>
void for_each_chunk(std::span<const std::byte> file, const Function& chunk) {
  std::size_t at = 8;
  while (file.size() - at >= 12) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = length << 8 | std::to_integer<std::size_t>(file[at + i]);
    if (length > file.size() - at - 12) return;
    chunk(std::string_view(reinterpret_cast<const char*>(file.data()) + at + 4, 4), file.subspan(at + 8, length));
    at += 12 + length;
  }
}

int orientation_of(std::span<const std::byte> file) {
  std::optional<int> exif, xmp;
  for_each_chunk(file, [&](std::string_view type, std::span<const std::byte> data) {
    const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
    if (type == "eXIf") exif = exif_orientation(data);
    if (type == "iTXt" && text.starts_with("XML:com.adobe.xmp")) xmp = xmp_orientation(text);
  });
  return exif ? *exif : xmp.value_or(1);
}

/// Pillow opens 16-bit grey as "I;16", whose conversion to RGB cuts at 255 instead of scaling; HF's pixels are these.
void expand_gray16(std::span<const std::uint8_t> gray, std::vector<std::uint8_t>& rgb) {
  for (std::size_t i = 0; i < gray.size() / 2; ++i) {
    const std::uint8_t value = gray[2 * i] != 0 ? std::uint8_t{255} : gray[2 * i + 1];
    std::fill_n(rgb.begin() + static_cast<std::ptrdiff_t>(3 * i), 3, value);
  }
}

[[noreturn]] void fail(const std::string& name, const PngDecoder& decoder) {
  throw InputError(fmt::format("{}: damaged PNG ({}); replace the file", name, one_line(decoder.message)));
}

std::int64_t big_endian32(std::span<const std::byte> file, std::size_t at) {
  std::int64_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::int64_t>(file[at + i]);
  return value;
}

}  // namespace

DecodedImage decode_png(std::span<const std::byte> file, const std::string& name) {
  if (file.size() < 33) throw InputError(name + ": damaged PNG (the file is truncated); replace the file");
  require_decodable_size(big_endian32(file, 16), big_endian32(file, 20), name);  // IHDR comes first, always
  PngDecoder decoder(file);
  if (!decoder.read_header()) fail(name, decoder);
  const auto width = static_cast<std::size_t>(png_get_image_width(decoder.png, decoder.info));
  const auto height = static_cast<std::size_t>(png_get_image_height(decoder.png, decoder.info));
  require_decodable_size(static_cast<std::int64_t>(width), static_cast<std::int64_t>(height), name);
  const bool is_gray16 = png_get_channels(decoder.png, decoder.info) == 1;
  const std::size_t row_bytes = width * (is_gray16 ? 2 : 3);
  if (png_get_rowbytes(decoder.png, decoder.info) != row_bytes) {
    throw InputError(name + ": PNG of an unknown colour type; convert it to RGB");
  }

  std::vector<std::uint8_t> pixels(row_bytes * height);
  std::vector<png_bytep> rows(height);
  for (std::size_t y = 0; y < height; ++y) rows[y] = pixels.data() + y * row_bytes;
  if (!decoder.read_rows(rows.data())) fail(name, decoder);

  DecodedImage out{{static_cast<int>(width), static_cast<int>(height), {}}, orientation_of(file)};
  if (is_gray16) {
    out.image.rgb.resize(width * height * 3);
    expand_gray16(pixels, out.image.rgb);
  } else {
    out.image.rgb = std::move(pixels);
  }
  return out;
}

}  // namespace qwenbench::model
