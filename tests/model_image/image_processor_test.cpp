// Against HF's Qwen2VLImageProcessor (torchvision): scripts/fixtures/make_image_fixtures.py.
#include "model/image_processor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model_image/fixtures.h"

namespace qwenbench::model {
namespace {

/// uint8 pixels behind pixel_values: the inverse of normalising and of the order of patches.
std::vector<std::uint8_t> pixels_of(const ProcessedImage& image) {
  const int width = image.grid_w * 16;
  std::vector<std::uint8_t> out(static_cast<std::size_t>(image.grid_h * 16 * width * 3));
  for (int row = 0; row < image.grid_h * image.grid_w; ++row) {
    const int block = row / 4;
    const int patch_y = block / (image.grid_w / 2) * 2 + row % 4 / 2;
    const int patch_x = block % (image.grid_w / 2) * 2 + row % 2;
    for (int column = 0; column < 1536; ++column) {
      const int c = column / 512, y = patch_y * 16 + column / 16 % 16, x = patch_x * 16 + column % 16;
      const float value = image.pixel_values[static_cast<std::size_t>(row * 1536 + column)];
      out[static_cast<std::size_t>((y * width + x) * 3 + c)] =
          static_cast<std::uint8_t>(std::lround(value * 127.5f + 127.5f));
    }
  }
  return out;
}

TEST_CASE("target sizes are those of HF's smart_resize") {
  for (const auto& row : image_fixture("smart_resize.json")) {
    CAPTURE(row.dump());
    ImageProcessorConfig config;
    config.min_pixels = row[2];
    config.max_pixels = row[3];
    const ImageSize size = target_size(row[0], row[1], config);
    CHECK(size.height == row[4].get<int>());
    CHECK(size.width == row[5].get<int>());
    CHECK(size.grid_h == size.height / 16);
    CHECK(size.grid_w == size.width / 16);
    CHECK(size.pads == size.height * size.width / 1024);
  }
}

TEST_CASE("resized pixels are within 1 of torchvision's; given the same pixels, equal") {
  const auto cases = image_fixture("cases.json");
  const ImageProcessorConfig config = fixture_config(cases);
  int files = 0;
  for (const auto& entry : cases["cases"]) {
    const std::string file = entry["file"];
    CAPTURE(file);
    const RgbImage image = read_image(kImageFixtures + file);
    const ProcessedImage processed = process_image(image, config);
    CHECK(processed.grid_h == entry["grid"][0].get<int>());
    CHECK(processed.grid_w == entry["grid"][1].get<int>());
    if (!std::filesystem::exists(kImageFixtures + file + ".resized")) continue;
    ++files;
    const auto expected = bytes_of_file(file + ".resized");
    CHECK(largest_difference(pixels_of(processed), expected) <= 1);
    if (!std::filesystem::exists(kImageFixtures + file + ".rgb")) continue;
    const RgbImage same{image.width, image.height, bytes_of_file(file + ".rgb")};
    CHECK(largest_difference(pixels_of(process_image(same, config)), expected) == 0);
  }
  CHECK(files >= 20);
}

TEST_CASE("pixel_values are HF's bit for bit: order of patches, both frames, normalization") {
  const ImageProcessorConfig config = fixture_config(image_fixture("cases.json"));
  const ProcessedImage image = process_image(read_image(kImageFixtures + "layout.png"), config);
  const auto bytes = bytes_of_file("layout.f32");
  REQUIRE(image.pixel_values.size() * sizeof(float) == bytes.size());
  CHECK(std::memcmp(image.pixel_values.data(), bytes.data(), bytes.size()) == 0);
}

TEST_CASE("a size that is right already is not touched") {
  const RgbImage image = random_image(256, 320, 3);
  CHECK(pixels_of(process_image(image, ImageProcessorConfig{})) == image.rgb);
}

TEST_CASE("what cannot be processed is refused") {
  const ImageProcessorConfig config;
  const auto error_of = [&](int height, int width) {
    return message_of<InputError>([&] { target_size(height, width, config); });
  };
  CHECK(error_of(201, 1).find("1 x 201 pixels is too narrow") != std::string::npos);
  CHECK(error_of(1, 1000).find("200 to 1") != std::string::npos);
  CHECK(error_of(200, 1).empty());
  CHECK(error_of(0, 5).find("cannot be used") != std::string::npos);
  CHECK_THROWS_AS(process_image(RgbImage{}, config), InputError);
  ImageProcessorConfig wrong;
  wrong.patch_size = 0;
  CHECK_THROWS_AS(target_size(32, 32, wrong), InputError);
  wrong = {};
  wrong.min_pixels = wrong.max_pixels + 1;
  CHECK_THROWS_AS(target_size(32, 32, wrong), InputError);
  wrong = {};
  wrong.max_pixels = std::int64_t{1} << 60;
  CHECK_THROWS_AS(target_size(32, 32, wrong), InputError);
}

TEST_CASE("the content hash depends on pixels and on grid") {
  const ImageProcessorConfig config;
  const ProcessedImage image = process_image(random_image(256, 512, 1), config);
  CHECK(content_hash(image) == content_hash(process_image(random_image(256, 512, 1), config)));
  CHECK(content_hash(image) != content_hash(process_image(random_image(256, 512, 2), config)));
  ProcessedImage other = image;
  std::swap(other.grid_h, other.grid_w);
  CHECK(content_hash(image) != content_hash(other));
}

}  // namespace
}  // namespace qwenbench::model
