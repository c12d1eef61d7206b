// PNG and JPEG bytes from anywhere: an InputError, or an image that the processor takes. Images above a megapixel are
// left alone, so that time goes into the formats.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "model/image_decode.h"
#include "model/image_processor.h"

namespace {

constexpr std::uint32_t kMaxSide = 2048;

std::uint32_t big_endian(const std::uint8_t* data, int bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | data[i];
  return value;
}

/// True where a header claims more pixels than a fuzzer should spend its time on.
bool is_large(const std::uint8_t* data, std::size_t size) {
  if (size > 24 && data[0] == 0x89) return big_endian(data + 16, 4) > kMaxSide || big_endian(data + 20, 4) > kMaxSide;
  for (std::size_t i = 0; data[0] == 0xff && i + 9 < size; ++i) {
    const bool is_frame = data[i] == 0xff && data[i + 1] >= 0xc0 && data[i + 1] <= 0xcf;
    if (is_frame && (big_endian(data + i + 5, 2) > kMaxSide || big_endian(data + i + 7, 2) > kMaxSide)) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || is_large(data, size)) return 0;
  using namespace qwenbench::model;
  try {
    const RgbImage image = decode_image(std::as_bytes(std::span(data, size)), "fuzz");
    if (image.rgb.size() != static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3)
      std::abort();
    ImageProcessorConfig config;
    config.min_pixels = 1024;
    config.max_pixels = 4096;
    const ProcessedImage processed = process_image(image, config);
    if (processed.pixel_values.size() != static_cast<std::size_t>(processed.grid_h * processed.grid_w) * 1536)
      std::abort();
  } catch (const qwenbench::InputError&) {
  }
  return 0;
}
