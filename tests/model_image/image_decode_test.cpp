// Against Pillow, through transformers.image_utils.load_image: scripts/fixtures/make_image_fixtures.py.
#include "model/image_decode.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"
#include "model_image/fixtures.h"

namespace qwenbench::model {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string decode_error(const std::vector<std::uint8_t>& bytes) {
  return message_of<InputError>([&] { decode_bytes(bytes); });
}

TEST_CASE("pixels are Pillow's") {
  int files = 0;
  const auto fixture = image_fixture("cases.json");
  for (const auto& entry : fixture["cases"]) {
    const std::string file = entry["file"];
    CAPTURE(file);
    const RgbImage image = read_image(kImageFixtures + file);
    CHECK(image.height == entry["height"].get<int>());
    CHECK(image.width == entry["width"].get<int>());
    CHECK(image.rgb.size() == static_cast<std::size_t>(image.height * image.width * 3));
    if (!std::filesystem::exists(kImageFixtures + file + ".rgb")) continue;
    ++files;
    // PNG exactly. JPEG decoders may differ by one: Pillow brings its own libjpeg-turbo.
    CHECK(largest_difference(image.rgb, bytes_of_file(file + ".rgb")) <= (file.ends_with(".png") ? 0 : 1));
  }
  CHECK(files >= 35);
}

TEST_CASE("every truncation is an error, or the whole image") {
  for (const char* file : {"rgb_interlaced.png", "palette.png", "progressive.jpg", "exif3.jpg", "gray16.png"}) {
    CAPTURE(file);
    const auto whole = bytes_of_file(file);
    const RgbImage image = decode_bytes(whole);
    for (std::size_t size = 0; size + 1 < whole.size(); size += 1 + whole.size() / 150) {
      CAPTURE(size);
      std::string error;
      try {
        const auto end = whole.begin() + static_cast<std::ptrdiff_t>(size);
        const RgbImage part = decode_bytes({whole.begin(), end});
        CHECK(part.rgb == image.rgb);  // a PNG without its IEND still has all pixels
      } catch (const InputError& e) {
        error = e.what();
        CHECK(error.find('\n') == std::string::npos);
      }
      if (size < whole.size() / 2) CHECK(!error.empty());
    }
  }
}

TEST_CASE("flipped bytes are an error or some image, never a crash") {
  for (const char* file : {"palette.png", "rgb_interlaced.png", "progressive.jpg", "exif6.jpg", "cmyk.jpg"}) {
    const auto whole = bytes_of_file(file);
    for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 300) {
      auto damaged = whole;
      damaged[at] ^= 0x55;
      try {
        const RgbImage image = decode_bytes(damaged);
        CHECK(image.rgb.size() == static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
      } catch (const InputError&) {
      }
    }
  }
}

TEST_CASE("a decompression bomb is refused before it is unpacked") {
  auto bomb = bytes_of_file("rgb_exact.png");
  const std::array<std::uint8_t, 8> huge{0, 0, 0x27, 0x11, 0, 0, 0x27, 0x10};  // 10001 x 10000
  std::copy(huge.begin(), huge.end(), bomb.begin() + 16);
  CHECK(contains(decode_error(bomb), "x.png: 10001 x 10000 pixels are more than 100 megapixels"));
  std::fill_n(bomb.begin() + 16, 8, std::uint8_t{0xff});
  CHECK(contains(decode_error(bomb), "more than 100 megapixels"));
  std::fill_n(bomb.begin() + 16, 8, std::uint8_t{0});
  CHECK(contains(decode_error(bomb), "no pixels"));

  auto jpeg = bytes_of_file("gray.jpg");
  const std::array<std::uint8_t, 2> sof{0xff, 0xc0};
  const auto frame = std::search(jpeg.begin(), jpeg.end(), sof.begin(), sof.end());
  REQUIRE(frame != jpeg.end());
  std::fill_n(frame + 5, 4, std::uint8_t{0xfe});  // height and width 65278
  CHECK(contains(decode_error(jpeg), "65278 x 65278 pixels are more than 100 megapixels"));
}

TEST_CASE("what is no image is refused with what it seems to be") {
  const auto error_of = [](std::string_view text) { return decode_error({text.begin(), text.end()}); };
  CHECK(contains(error_of(""), "x.png: the file is empty"));
  CHECK(contains(error_of("hello"), "neither PNG nor JPEG (format: unknown); convert it"));
  CHECK(contains(error_of(std::string_view("RIFF\0\0\0\0WEBPVP8 ", 16)), "format: WebP"));
  CHECK(contains(error_of("GIF89a"), "format: GIF"));
  CHECK(contains(error_of("\x89PNG\r\n\x1a\n"), "damaged PNG"));
  CHECK(contains(error_of("\xff\xd8\xff"), "damaged JPEG"));
  CHECK(contains(message_of<InputError>([] { read_image("no/such/file.png"); }), "no/such/file.png"));
}

TEST_CASE("random images are the same for the same seed, and not flat") {
  const RgbImage a = random_image(40, 30, 7);
  CHECK(a.width == 40);
  CHECK(a.height == 30);
  CHECK(a.rgb.size() == 3600);
  CHECK(a.rgb == random_image(40, 30, 7).rgb);
  CHECK(a.rgb != random_image(40, 30, 8).rgb);
  const auto [low, high] = std::minmax_element(a.rgb.begin(), a.rgb.end());
  CHECK(*high - *low > 50);
  CHECK_THROWS_AS(random_image(0, 5, 1), InputError);
  CHECK_THROWS_AS(random_image(100'000, 100'000, 1), InputError);
}

}  // namespace
}  // namespace qwenbench::model
