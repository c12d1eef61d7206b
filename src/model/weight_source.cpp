#include "model/weight_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/sha256.h"
#include "model/json_object.h"

namespace qwenbench::model {
namespace {

/// edit_distance() takes time quadratic in the names; those of another length cannot be near.
std::string nearest_tensor(const std::string& name, std::vector<std::string> names) {
  std::erase_if(names, [&](const std::string& other) {
    return other.size() + 8 < name.size() || name.size() + 8 < other.size();
  });
  return nearest_name(name, names);
}

}  // namespace

TensorView TableWeightSource::tensor(const std::string& name, std::span<const std::int64_t> shape) const {
  if (!has_tensor(name)) {
    const std::string nearest = nearest_tensor(name, tensor_names());
    throw InputError(
        fmt::format("{}: tensor {} is missing{}", place_of(name), name,
                    nearest.empty() ? "" : fmt::format(" (the nearest name is {})", one_line(nearest, 120))));
  }
  return checked_tensor(*this, name, shape);
}

std::unique_ptr<LinearSource> TableWeightSource::linear(const std::string& module, std::int64_t n,
                                                        std::int64_t k) const {
  return make_linear(*this, module, n, k);
}

std::vector<LayerKvScales> TableWeightSource::kv_scales() const { return read_kv_scales(*this, config_.text); }

namespace {

/// Bytes from a tensor's begin, middle and end.
std::string sample_of(const TensorView& tensor) {
  constexpr std::size_t kBytes = 64;
  const std::size_t size = tensor.bytes(), count = std::min(kBytes, size);
  std::string sample;
  for (const std::size_t at : {std::size_t{0}, (size - count) / 2, size - count})
    sample.append(reinterpret_cast<const char*>(tensor.data) + at, count);
  return sample;
}

}  // namespace

std::string model_fingerprint(const std::vector<TensorSpec>& tensors, const std::filesystem::path& config_file,
                              const std::string& kind, const TensorTable* values) {
  nlohmann::json config = parse_json_file(config_file);
  if (config.contains("quantization_config") && config["quantization_config"].is_object()) {
    nlohmann::json& quantization = config["quantization_config"];
    const bool cache_alone = quantization.contains("kv_cache_scheme") && quantization.contains("config_groups") &&
                             quantization["config_groups"].empty();
    quantization.erase("kv_cache_scheme");
    if (cache_alone) config.erase("quantization_config");
  }
  std::vector<std::string> lines;
  for (const TensorSpec& tensor : tensors) {
    if (is_kv_scale_name(tensor.name)) continue;
    lines.push_back(fmt::format("{} {} {}\n", tensor.name, safetensors_name(tensor.dtype), shape_text(tensor.shape)));
    if (const auto view = values ? values->find_tensor(tensor.name) : std::nullopt) lines.back() += sample_of(*view);
  }
  std::sort(lines.begin(), lines.end());
  Sha256 hash;
  hash.update(kind + "\n").update(config.dump() + "\n");
  for (const std::string& line : lines) hash.update(line);
  return hash.hex();
}

}  // namespace qwenbench::model
