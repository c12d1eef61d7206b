#include "parity/oracle_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "base/sha256.h"
#include "model/safetensors.h"

namespace qwenbench::parity {
namespace {

model::TensorView need(const model::SafetensorsFile& file, const std::string& name) {
  const auto view = file.find(name);
  if (!view) throw std::runtime_error(file.path() + " has no " + name);
  return *view;
}

std::vector<std::int32_t> integers(const model::SafetensorsFile& file, const std::string& name) {
  const auto view = need(file, name);
  std::vector<std::int32_t> out(static_cast<std::size_t>(view.elements()));
  std::memcpy(out.data(), view.data, view.bytes());
  return out;
}

/// Bytes [patches, 3, 256] -> pixel values [patches, 3, 2 frames, 256], as Hugging Face's processor normalises.
std::shared_ptr<const workload::Image> make_image(const std::byte* bytes, int grid_h, int grid_w) {
  auto image = std::make_shared<workload::Image>();
  image->grid_h = grid_h;
  image->grid_w = grid_w;
  const std::size_t channels = static_cast<std::size_t>(grid_h) * grid_w * 3;
  image->pixel_values.resize(channels * 512);
  for (std::size_t c = 0; c < channels; ++c) {
    float* out = image->pixel_values.data() + c * 512;
    for (std::size_t i = 0; i < 256; ++i) {
      out[i] = (static_cast<float>(std::to_integer<int>(bytes[c * 256 + i])) - 127.5f) / 127.5f;
    }
    std::copy_n(out, 256, out + 256);
  }
  image->sha256 = Sha256()
                      .update(&grid_h, sizeof grid_h)
                      .update(&grid_w, sizeof grid_w)
                      .update(image->pixel_values.data(), image->pixel_values.size() * sizeof(float))
                      .hex();
  return image;
}

void read_images(const model::SafetensorsFile& file, Case& out) {
  const auto grids = integers(file, "image_grid_thw");
  const std::byte* bytes = need(file, "pixels").data;
  for (std::size_t i = 0; i < grids.size(); i += 3) {
    out.images.push_back(make_image(bytes, grids[i + 1], grids[i + 2]));
    bytes += std::size_t{768} * static_cast<std::size_t>(grids[i + 1] * grids[i + 2]);
  }
}

void read_cache(const model::SafetensorsFile& file, Case& out) {
  for (int layer = 0; file.find("k_scale." + std::to_string(layer)); ++layer) {
    const std::string suffix = "_scale." + std::to_string(layer);
    out.scales.push_back({need(file, "k" + suffix).to_floats(), need(file, "v" + suffix).to_floats(), {}, {}});
  }
  for (const auto& [name, entry] : file.header().tensors) {
    if (name.find("_codes.") == std::string::npos) continue;
    const auto view = file.view(entry);
    out.codes[name].assign(view.data, view.data + view.bytes());
  }
}

}  // namespace

Case load_case(const std::string& name, const std::string& pictures_of) {
  const model::SafetensorsFile file("fixtures/parity/" + name + ".safetensors");
  Case out;
  out.ids = integers(file, "input_ids");
  const auto positions = integers(file, "position_ids");
  const std::size_t n = out.ids.size();
  for (std::size_t i = 0; i < n; ++i) out.positions.push_back({positions[i], positions[n + i], positions[2 * n + i]});
  out.logits = need(file, "logits").to_floats();
  out.vocab = static_cast<int>(out.logits.size() / n);
  if (file.find("pixels")) read_images(file, out);
  if (!pictures_of.empty()) {
    read_images(model::SafetensorsFile("fixtures/parity/" + pictures_of + ".safetensors"), out);
  }
  if (file.find("picture_begin")) {
    const auto begins = integers(file, "picture_begin");
    out.picture_begin.assign(begins.begin(), begins.end());
  }
  read_cache(file, out);
  return out;
}

double worst_error(const Case& expected, std::span<const float> actual, int first) {
  const std::size_t vocab = static_cast<std::size_t>(expected.vocab);
  const float* want = expected.logits.data() + static_cast<std::size_t>(first) * vocab;
  if (actual.empty() || actual.size() % vocab != 0 ||
      actual.size() > expected.logits.size() - static_cast<std::size_t>(first) * vocab) {
    return std::numeric_limits<double>::infinity();
  }
  double worst = 0;
  for (std::size_t row = 0; row < actual.size() / vocab; ++row) {
    double difference = 0, norm = 0;
    for (std::size_t i = row * vocab; i < (row + 1) * vocab; ++i) {
      difference += std::pow(double{actual[i]} - want[i], 2);
      norm += std::pow(double{want[i]}, 2);
    }
    const double error = std::sqrt(difference / norm);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
  }
  return worst;
}

}  // namespace qwenbench::parity
