// The fixed-point resize of torchvision's uint8 path (ATen's upsample_bicubic2d_aa on uint8), of which HF's fast image
// processors make use: 16-bit weights, rounded to uint8 after each pass.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/image_processor.h"

namespace qwenbench::model {
namespace {

/// Along one axis: output i is the sum of weights[i * taps + j] * input[begin[i] + j] for j < count[i], shifted right.
struct Filter {
  int taps = 0;
  int shift = 0;
  std::vector<int> begin, count;
  std::vector<std::int16_t> weights;
};

/// Keys' cubic kernel with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/// As many fractional bits as the largest weight leaves room for in 16 bits, 22 at most.
int fractional_bits(double largest) {
  int bits = 0;
  while (bits < 22 && static_cast<int>(0.5 + largest * (1 << (bits + 1))) < (1 << 15)) ++bits;
  return bits;
}

Filter make_filter(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double widening = std::max(scale, 1.0);  // antialiasing: a smaller output averages over more input
  const double support = 2 * widening;
  Filter filter;
  filter.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  std::vector<double> weights(static_cast<std::size_t>(out) * static_cast<std::size_t>(filter.taps));
  double largest = 0;
  for (int i = 0; i < out; ++i) {
    const double center = scale * (i + 0.5);
    const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::clamp(std::min(static_cast<int>(center + support + 0.5), in) - begin, 0, filter.taps);
    double* row = weights.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(filter.taps);
    double total = 0;
    for (int j = 0; j < count; ++j) total += row[j] = cubic((j + begin - center + 0.5) * (1.0 / widening));
    for (int j = 0; j < count; ++j) largest = std::max(largest, row[j] /= total);
    filter.begin.push_back(begin);
    filter.count.push_back(count);
  }
  filter.shift = fractional_bits(largest);
  filter.weights.reserve(weights.size());
  for (const double weight : weights) {
    const double scaled = weight * (1 << filter.shift);
    filter.weights.push_back(static_cast<std::int16_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
  }
  return filter;
}

std::uint8_t to_byte(std::int32_t sum, int shift) {
  return static_cast<std::uint8_t>(std::clamp(sum >> shift, 0, 255));
}

RgbImage resize_columns(const RgbImage& image, int width) {
  const Filter filter = make_filter(image.width, width);
  RgbImage out{width, image.height, {}};
  out.rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(image.height) * 3);
  std::uint8_t* to = out.rgb.data();
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* row =
        image.rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) * 3;
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x, to += 3) {
      const std::uint8_t* from = row + static_cast<std::size_t>(filter.begin[x]) * 3;
      const std::int16_t* weight = filter.weights.data() + x * static_cast<std::size_t>(filter.taps);
      std::int32_t sum[3];
      std::fill_n(sum, 3, (1 << filter.shift) / 2);
      for (int j = 0; j < filter.count[x]; ++j, from += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += weight[j] * from[c];
      }
      for (int c = 0; c < 3; ++c) to[c] = to_byte(sum[c], filter.shift);
    }
  }
  return out;
}

RgbImage resize_rows(const RgbImage& image, int height) {
  const Filter filter = make_filter(image.height, height);
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  RgbImage out{image.width, height, {}};
  out.rgb.resize(stride * static_cast<std::size_t>(height));
  std::vector<std::int32_t> sum(stride);
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    std::fill(sum.begin(), sum.end(), (1 << filter.shift) / 2);
    const std::int16_t* weight = filter.weights.data() + y * static_cast<std::size_t>(filter.taps);
    for (int j = 0; j < filter.count[y]; ++j) {
      const std::uint8_t* from = image.rgb.data() + static_cast<std::size_t>(filter.begin[y] + j) * stride;
      for (std::size_t x = 0; x < stride; ++x) sum[x] += weight[j] * from[x];
    }
    for (std::size_t x = 0; x < stride; ++x) out.rgb[y * stride + x] = to_byte(sum[x], filter.shift);
  }
  return out;
}

}  // namespace

RgbImage resize_bicubic(const RgbImage& image, int height, int width) {
  if (image.width < 1 || image.height < 1 || height < 1 || width < 1)
    throw InputError("an image without pixels cannot be resized");
  RgbImage columns = width == image.width ? image : resize_columns(image, width);
  return height == columns.height ? columns : resize_rows(columns, height);
}

}  // namespace qwenbench::model
