#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "calibration/scale_file.h"

namespace qwenbench::calibration {
namespace {

using Json = nlohmann::ordered_json;

class SglangReader {
 public:
  SglangReader(const std::string& source, const model::TextConfig& config) : source_(source), config_(config) {}

  ScaleSet read(const Json& json) const {
    const Json& cache = object(json, "kv_cache", "");
    const auto dtype = cache.find("dtype");
    if (dtype == cache.end() || *dtype != "float8_e4m3fn") fail("kv_cache.dtype is not \"float8_e4m3fn\"");
    const Json& ranks = object(cache, "scaling_factor", "kv_cache.");
    if (ranks.empty()) fail("kv_cache.scaling_factor holds no rank");
    std::vector<std::vector<float>> by_rank;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) by_rank.push_back(read_rank(ranks, rank));
    ScaleSet set;
    set.method = "file";
    for (std::size_t layer = 0; layer < by_rank[0].size(); ++layer) {
      const std::vector<float> scales = of_layer(by_rank, layer);
      set.layers.push_back({scales, scales, {}, {}});
    }
    set.granularity = granularity_of(set.layers);
    check_scales(set.layers, config_, source_);
    return set;
  }

  [[noreturn]] void fail(const std::string& what) const { throw InputError(fmt::format("{}: {}", source_, what)); }

 private:
  const Json& object(const Json& json, const std::string& key, const std::string& where) const {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_object()) fail(fmt::format("{}{} is missing, or no object", where, key));
    return *found;
  }

  std::vector<float> read_rank(const Json& ranks, std::size_t rank) const {
    const Json& layers = object(ranks, std::to_string(rank), "kv_cache.scaling_factor.");
    std::vector<float> scales;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      const auto found = layers.find(std::to_string(layer));
      if (found == layers.end()) fail(fmt::format("rank {}: layer {} is missing", rank, layer));
      if (!found->is_number()) fail(fmt::format("rank {}: layer {}: the scale is not a number", rank, layer));
      scales.push_back(found->get<float>());
    }
    if (static_cast<int>(scales.size()) != config_.num_layers) {
      fail(fmt::format("rank {}: layer {} is {}; the model has {} layers", rank,
                       std::min(scales.size(), static_cast<std::size_t>(config_.num_layers)),
                       static_cast<int>(scales.size()) < config_.num_layers ? "missing" : "too many",
                       config_.num_layers));
    }
    return scales;
  }

  /// One scale where all ranks agree, else that of each head's rank.
  std::vector<float> of_layer(const std::vector<std::vector<float>>& by_rank, std::size_t layer) const {
    bool equal = true;
    for (const auto& rank : by_rank) equal = equal && rank[layer] == by_rank[0][layer];
    if (equal) return {by_rank[0][layer]};
    const int ranks = static_cast<int>(by_rank.size());
    if (config_.num_kv_heads % ranks != 0) {
      fail(fmt::format("layer {}: {} ranks differ, and {} KV heads cannot be shared among them", layer, ranks,
                       config_.num_kv_heads));
    }
    std::vector<float> scales;
    scales.reserve(static_cast<std::size_t>(config_.num_kv_heads));
    for (int head = 0; head < config_.num_kv_heads; ++head) {
      scales.push_back(by_rank[static_cast<std::size_t>(head / (config_.num_kv_heads / ranks))][layer]);
    }
    return scales;
  }

  const std::string& source_;
  const model::TextConfig& config_;
};

}  // namespace

ScaleSet parse_sglang_scales(std::string_view text, const std::string& source, const model::TextConfig& config) {
  const Json json = Json::parse(text, nullptr, false);
  const SglangReader reader(source, config);
  if (!json.is_object()) reader.fail("is not a JSON object");
  return reader.read(json);
}

}  // namespace qwenbench::calibration
