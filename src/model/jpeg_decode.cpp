#include <fmt/format.h>
#include <jerror.h>
#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "model/image_codecs.h"

namespace qwenbench::model {
namespace {

/// libjpeg's state. Its errors come back by longjmp, so the functions that call setjmp own nothing with a destructor.
struct JpegDecoder {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = {};
  std::span<const std::byte> file;

  explicit JpegDecoder(std::span<const std::byte> data) : file(data) {
    jpeg.err = jpeg_std_error(&errors);
    errors.error_exit = &JpegDecoder::on_error;
    errors.emit_message = &JpegDecoder::on_message;
    progress.progress_monitor = &JpegDecoder::on_progress;
    jpeg.client_data = this;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&jpeg); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  [[noreturn]] void stop(const char* text) {
    std::strncpy(message, text, sizeof(message) - 1);
    std::longjmp(jump, 1);
  }
  [[noreturn]] static void on_error(j_common_ptr common) {
    auto* self = static_cast<JpegDecoder*>(common->client_data);
    char text[JMSG_LENGTH_MAX];
    common->err->format_message(common, text);
    self->stop(text);
  }
  /// As Pillow: damage inside is passed over, a file that ends too early is not. (Not every libjpeg warns of it.)
  static void on_message(j_common_ptr, int) {}
  static boolean on_end_of_file(j_decompress_ptr jpeg) {
    static_cast<JpegDecoder*>(jpeg->client_data)->stop("the file is truncated");
  }
  /// A progressive file of a few kilobytes can hold thousands of passes over the whole image.
  static void on_progress(j_common_ptr common) {
    const auto* jpeg = reinterpret_cast<jpeg_decompress_struct*>(common);
    const double scans = jpeg->input_scan_number;
    const double pixels = static_cast<double>(jpeg->image_width) * jpeg->image_height;
    if (scans > 128 || scans * pixels > 4e9) static_cast<JpegDecoder*>(common->client_data)->stop("too many scans");
  }

  bool read_header();
  bool start();
  bool read_rows(std::uint8_t* out, std::size_t row_bytes);
};

bool JpegDecoder::read_header() {
  if (setjmp(jump)) return false;
  jpeg_create_decompress(&jpeg);
  jpeg.client_data = this;
  jpeg.progress = &progress;
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);  // EXIF and XMP
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg.src->fill_input_buffer = &JpegDecoder::on_end_of_file;
  jpeg_read_header(&jpeg, TRUE);
  return true;
}

bool JpegDecoder::start() {
  if (setjmp(jump)) return false;
  jpeg.out_color_space = jpeg.num_components == 1 ? JCS_GRAYSCALE : jpeg.num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&jpeg);
  return true;
}

bool JpegDecoder::read_rows(std::uint8_t* out, std::size_t row_bytes) {
  if (setjmp(jump)) return false;
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = out + row_bytes * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  return true;
}

int orientation_of(const JpegDecoder& decoder) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::string exif, xmp;  // EXIF may continue in a second marker
  for (auto* marker = decoder.jpeg.marker_list; marker; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (data.starts_with(kExif)) exif += data.substr(kExif.size());
    if (data.starts_with(kXmp)) xmp = data.substr(kXmp.size());
  }
  const std::optional<int> orientation = exif_orientation(std::as_bytes(std::span(exif.data(), exif.size())));
  return orientation ? *orientation : xmp_orientation(xmp).value_or(1);
}

void gray_to_rgb(std::span<const std::uint8_t> gray, std::vector<std::uint8_t>& rgb) {
  for (std::size_t i = 0; i < gray.size(); ++i) rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = gray[i];
}

/// Pillow takes every four-component JPEG as inverted (Adobe's way), and converts without a colour profile.
void cmyk_to_rgb(std::span<const std::uint8_t> cmyk, std::vector<std::uint8_t>& rgb) {
  for (std::size_t i = 0; i < cmyk.size() / 4; ++i) {
    const int white = cmyk[4 * i + 3];  // 255 - k, stored inverted
    for (std::size_t c = 0; c < 3; ++c) {
      const int ink = (255 - cmyk[4 * i + c]) * white + 128;
      rgb[3 * i + c] = static_cast<std::uint8_t>(white - (((ink >> 8) + ink) >> 8));
    }
  }
}

[[noreturn]] void fail(const std::string& name, const JpegDecoder& decoder) {
  throw InputError(fmt::format("{}: damaged JPEG ({}); replace the file", name, one_line(decoder.message)));
}

}  // namespace

DecodedImage decode_jpeg(std::span<const std::byte> file, const std::string& name) {
  JpegDecoder decoder(file);
  if (!decoder.read_header()) fail(name, decoder);
  require_decodable_size(decoder.jpeg.image_width, decoder.jpeg.image_height, name);
  const int components = decoder.jpeg.num_components;
  if (components != 1 && components != 3 && components != 4) {
    throw InputError(fmt::format("{}: JPEG with {} colour components; convert it to RGB", name, components));
  }
  DecodedImage out{{}, orientation_of(decoder)};
  if (!decoder.start()) fail(name, decoder);

  const std::size_t width = decoder.jpeg.output_width;
  const std::size_t height = decoder.jpeg.output_height;
  std::vector<std::uint8_t> pixels(width * height * static_cast<std::size_t>(components));
  if (!decoder.read_rows(pixels.data(), width * static_cast<std::size_t>(components))) fail(name, decoder);

  out.image.width = static_cast<int>(width);
  out.image.height = static_cast<int>(height);
  if (components == 3) {
    out.image.rgb = std::move(pixels);
    return out;
  }
  out.image.rgb.resize(width * height * 3);
  components == 1 ? gray_to_rgb(pixels, out.image.rgb) : cmyk_to_rgb(pixels, out.image.rgb);
  return out;
}

}  // namespace qwenbench::model
