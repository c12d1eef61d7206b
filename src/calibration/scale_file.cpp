#include "calibration/scale_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calibration/scale_json.h"
#include "model/kv_scale_tensors.h"

namespace qwenbench::calibration {
namespace {

using Json = nlohmann::ordered_json;

Json value_or_list(const std::vector<float>& values) {
  if (values.size() == 1) return values[0];
  return values;
}

Json layer_json(const ScaleSet& set, std::size_t layer) {
  const model::LayerKvScales& scales = set.layers[layer];
  Json json{{"layer", layer}, {"k_scale", value_or_list(scales.k)}, {"v_scale", value_or_list(scales.v)}};
  if (scales.q) json["q_scale"] = value_or_list(*scales.q);
  if (scales.prob) json["prob_scale"] = *scales.prob;
  if (layer < set.amax.size()) {
    json["k_amax"] = set.amax[layer].k;
    json["v_amax"] = set.amax[layer].v;
  }
  json["samples"] = set.samples;
  return json;
}

/// Reads the members of one file; every complaint begins with the file's name.
class Reader {
 public:
  Reader(const std::string& source, const model::TextConfig& config) : source_(source), config_(config) {}

  [[noreturn]] void fail(const std::string& what) const { throw InputError(fmt::format("{}: {}", source_, what)); }

  const Json& member(const Json& object, const char* key, const std::string& where) const {
    const auto found = object.find(key);
    if (found == object.end()) fail(fmt::format("{}\"{}\" is missing", where, key));
    return *found;
  }

  std::string text(const Json& object, const char* key) const {
    const Json& value = member(object, key, "");
    if (!value.is_string()) fail(fmt::format("\"{}\" is not a text", key));
    return value.get<std::string>();
  }

  float number(const Json& value, const std::string& where, const char* key) const {
    const std::optional<float> found = scale_number(value);
    if (!found) fail(fmt::format("{}{} is not a number", where, key));
    return *found;
  }

  std::vector<float> values(const Json& value, const std::string& where, const char* key) const {
    if (!value.is_array()) return {number(value, where, key)};
    std::vector<float> all;
    for (const Json& item : value) all.push_back(number(item, where, key));
    return all;
  }

  void layer(const Json& json, int index, ScaleSet& set) const {
    const std::string where = fmt::format("layer {}: ", index);
    if (!json.is_object()) fail(where + "is not an object");
    model::LayerKvScales scales;
    scales.k = values(member(json, "k_scale", where), where, "k_scale");
    scales.v = values(member(json, "v_scale", where), where, "v_scale");
    if (json.contains("q_scale")) scales.q = values(json["q_scale"], where, "q_scale");
    if (json.contains("prob_scale")) scales.prob = number(json["prob_scale"], where, "prob_scale");
    set.layers.push_back(std::move(scales));
    if (json.contains("k_amax") && json.contains("v_amax")) {
      set.amax.push_back({number(json["k_amax"], where, "k_amax"), number(json["v_amax"], where, "v_amax")});
    }
    if (json.contains("samples")) {
      if (!json["samples"].is_number_integer()) fail(where + "samples is not a whole number");
      set.samples = json["samples"].get<std::int64_t>();
    }
  }

  /// The number that an entry names, in range.
  std::size_t layer_number(const Json& entry, std::size_t place) const {
    const Json& number = member(entry, "layer", fmt::format("layers[{}]: ", place));
    if (!number.is_number_integer() || number.get<std::int64_t>() < 0) {
      fail(fmt::format("layers[{}]: \"layer\" is not a whole number from 0", place));
    }
    if (number.get<std::int64_t>() >= config_.num_layers) {
      fail(
          fmt::format("layer {} is too many; the model has {} layers", number.get<std::int64_t>(), config_.num_layers));
    }
    return number.get<std::size_t>();
  }

  /// One entry a layer, by its "layer". Files of before that key list the layers in their order, all with none: where
  /// their number is wrong nobody can say which one is.
  std::vector<const Json*> entries(const Json& layers) const {
    const auto expected = static_cast<std::size_t>(config_.num_layers);
    std::vector<const Json*> by_layer(expected, nullptr);
    const bool numbered =
        std::any_of(layers.begin(), layers.end(), [](const Json& entry) { return entry.contains("layer"); });
    if (!numbered && layers.size() != expected) {
      fail(fmt::format("lists {} layers without their numbers; the model has {}", layers.size(), expected));
    }
    for (std::size_t place = 0; place < layers.size(); ++place) {
      const std::size_t layer = numbered ? layer_number(layers[place], place) : place;
      if (by_layer[layer] != nullptr) fail(fmt::format("layer {} is listed twice", layer));
      by_layer[layer] = &layers[place];
    }
    const auto missing = std::find(by_layer.begin(), by_layer.end(), nullptr);
    if (missing != by_layer.end()) {
      fail(fmt::format("layer {} is missing; the model has {} layers", missing - by_layer.begin(), expected));
    }
    return by_layer;
  }

  ScaleSet read(const Json& json, const std::string& model_fingerprint) const {
    if (!json.is_object()) fail("is not a JSON object");
    const Json& version = member(json, "schema_version", "");
    if (!version.is_number_integer() || version.get<std::int64_t>() < 1)
      fail("schema_version is not a whole number above 0");
    if (version.get<std::int64_t>() > kScaleFileVersion) {
      fail(fmt::format("schema_version {} is newer than this program knows ({}); update qwenbench",
                       version.get<std::int64_t>(), kScaleFileVersion));
    }
    ScaleSet set;
    check_fingerprint(set, text(json, kFingerprintKey), model_fingerprint, source_);
    set.method = text(json, "method");
    set.granularity = text(json, "granularity");
    set.calibration_set_sha256 = text(json, "calibration_set_sha256");
    const Json& layers = member(json, "layers", "");
    if (!layers.is_array()) fail("\"layers\" is not a list");
    for (const Json* entry : entries(layers)) layer(*entry, static_cast<int>(set.layers.size()), set);
    if (set.amax.size() != set.layers.size()) set.amax.clear();
    check_scales(set.layers, config_, source_);
    return set;
  }

 private:
  const std::string& source_;
  const model::TextConfig& config_;
};

}  // namespace

std::string scale_file_text(const ScaleSet& set, const std::string& model_fingerprint, const std::string& evidence) {
  Json json{{"schema_version", kScaleFileVersion},
            {kFingerprintKey, model_fingerprint},
            {"calibration_set_sha256", set.calibration_set_sha256},
            {"method", set.method},
            {"granularity", set.granularity}};
  json["layers"] = Json::array();
  for (std::size_t layer = 0; layer < set.layers.size(); ++layer) json["layers"].push_back(layer_json(set, layer));
  json.update(Json::parse(evidence));
  return json.dump(2) + "\n";
}

void write_scale_file(const std::filesystem::path& path, const ScaleSet& set, const std::string& model_fingerprint,
                      const std::string& evidence) {
  write_file_atomically(path, scale_file_text(set, model_fingerprint, evidence));
}

ScaleSet parse_scale_file(std::string_view text, const std::string& source, const model::TextConfig& config,
                          const std::string& model_fingerprint) {
  const Json json = parse_scale_json(text);
  const Reader reader(source, config);
  if (json.is_discarded()) reader.fail("is not valid JSON; is it a KV scale file?");
  return reader.read(json, model_fingerprint);
}

ScaleSet read_scale_file(const std::filesystem::path& path, const model::TextConfig& config,
                         const std::string& model_fingerprint, std::string* form) {
  const auto is = [form](const char* name) {
    if (form != nullptr) *form = name;
  };
  if (std::filesystem::is_directory(path) || path.extension() == ".safetensors") {
    is("safetensors, names of compressed-tensors or ModelOpt");
    ScaleSet set;
    set.method = "file";
    model::KvScaleTensors tensors = model::read_kv_scale_tensors(path, config);
    for (const model::KvScaleTensors::File& file : tensors.files) {
      const auto found = file.metadata.find(kFingerprintKey);
      check_fingerprint(set, found == file.metadata.end() ? std::nullopt : std::optional(found->second),
                        model_fingerprint, file.path);
    }
    set.layers = std::move(tensors.layers);
    set.granularity = granularity_of(set.layers);
    check_scales(set.layers, config, path.string());
    return set;
  }
  const std::string text = read_file(path);
  const Json json = parse_scale_json(text);
  if (json.is_object() && json.contains("kv_cache")) {
    is("SGLang");
    return parse_sglang_scales(text, path.string(), config, model_fingerprint);
  }
  is("qwenbench");
  return parse_scale_file(text, path.string(), config, model_fingerprint);
}

}  // namespace qwenbench::calibration
