#include <fmt/format.h>

#include "base/error.h"
#include "calibration/scale_file.h"
#include "calibration/scale_json.h"

namespace qwenbench::calibration {
namespace {

using Json = nlohmann::ordered_json;

class SglangReader {
 public:
  SglangReader(const std::string& source, const model::TextConfig& config) : source_(source), config_(config) {}

  ScaleSet read(const Json& json, const std::string& model_fingerprint) const {
    ScaleSet set;
    set.method = "file";
    check_fingerprint(set, optional_text(json, kFingerprintKey), model_fingerprint, source_);
    const std::optional<std::string> type = optional_text(json, "model_type");
    if (type && *type != kSglangModelType) {
      fail(fmt::format("model_type is \"{}\": SGLang loads such a file for \"{}\" only", one_line(*type, 60),
                       kSglangModelType));
    }
    const Json& cache = object(json, "kv_cache", "");
    const auto dtype = cache.find("dtype");
    if (dtype == cache.end() || *dtype != "float8_e4m3fn") fail("kv_cache.dtype is not \"float8_e4m3fn\"");
    const Json& ranks = object(cache, "scaling_factor", "kv_cache.");
    if (ranks.empty()) fail("kv_cache.scaling_factor holds no rank");
    std::vector<std::vector<float>> by_rank;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) by_rank.push_back(read_rank(ranks, rank));
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

  std::optional<std::string> optional_text(const Json& json, const char* key) const {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return std::nullopt;
    if (!found->is_string()) fail(fmt::format("\"{}\" is not a text", key));
    return found->get<std::string>();
  }

  std::vector<float> read_rank(const Json& ranks, std::size_t rank) const {
    const Json& layers = object(ranks, std::to_string(rank), "kv_cache.scaling_factor.");
    std::vector<float> scales;
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      const auto found = layers.find(std::to_string(layer));
      if (found == layers.end()) {
        fail(fmt::format("rank {}: layer {} is missing; the model has {} layers", rank, layer, config_.num_layers));
      }
      const std::optional<float> scale = scale_number(*found);
      if (!scale) fail(fmt::format("rank {}: layer {}: the scale is not a number", rank, layer));
      scales.push_back(*scale);
    }
    if (layers.size() > scales.size()) {
      fail(fmt::format("rank {}: lists {} layers; the model has {}", rank, layers.size(), config_.num_layers));
    }
    return scales;
  }

  /// One scale where all ranks agree, else that of each head's rank.
  std::vector<float> of_layer(const std::vector<std::vector<float>>& by_rank, std::size_t layer) const {
    bool equal = true;  // alone a rank is, even where its scale is NaN
    for (std::size_t rank = 1; rank < by_rank.size(); ++rank) {
      equal = equal && by_rank[rank][layer] == by_rank[0][layer];
    }
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

ScaleSet parse_sglang_scales(std::string_view text, const std::string& source, const model::TextConfig& config,
                             const std::string& model_fingerprint) {
  const Json json = parse_scale_json(text);
  const SglangReader reader(source, config);
  if (!json.is_object()) reader.fail("is not a JSON object");
  return reader.read(json, model_fingerprint);
}

}  // namespace qwenbench::calibration
