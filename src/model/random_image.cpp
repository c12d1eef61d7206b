#include <fmt/format.h>

#include <array>

#include "base/error.h"
#include "model/image_codecs.h"

namespace qwenbench::model {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, unlike the distributions of <random>.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

}  // namespace

RgbImage random_image(int width, int height, std::uint64_t seed) {
  require_decodable_size(width, height, fmt::format("random image {} x {}", width, height));
  SplitMix64 random(seed);
  // Per channel: the values of the four corners, between which the gradient runs.
  std::array<std::array<std::int64_t, 4>, 3> corners{};
  for (auto& channel : corners) {
    for (auto& corner : channel) corner = static_cast<std::int64_t>(random.next() % 224 + 16);
  }
  RgbImage out{width, height, {}};
  out.rgb.reserve(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const std::uint64_t bits = random.next();
      for (std::size_t c = 0; c < 3; ++c) {
        const auto& [top_left, top_right, bottom_left, bottom_right] = corners[c];
        const std::int64_t top = top_left * (width - x) + top_right * x;
        const std::int64_t bottom = bottom_left * (width - x) + bottom_right * x;
        const std::int64_t smooth = (top * (height - y) + bottom * y) / (std::int64_t{width} * height);
        const auto noise = static_cast<std::int64_t>(bits >> (8 * c) & 31) - 16;
        out.rgb.push_back(static_cast<std::uint8_t>(smooth + noise));  // 16..239 and -16..15: in range
      }
    }
  }
  return out;
}

}  // namespace qwenbench::model
