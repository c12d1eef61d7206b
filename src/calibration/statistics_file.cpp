#include "calibration/statistics_file.h"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/safetensors.h"

namespace qwenbench::calibration {
namespace {

using Json = nlohmann::ordered_json;

/// fn(name, histogram) of every histogram: "k.LAYER.HEAD.text".
template <class Statistics, class Function>
void for_each_histogram(Statistics& statistics, const Function& fn) {
  const std::vector<std::pair<const char*, Kind>> kinds{{"k", Kind::kKey}, {"v", Kind::kValue}, {"q", Kind::kQuery}};
  for (const auto& [letter, kind] : kinds) {
    if (!statistics.wants(kind)) continue;
    for (int layer = 0; layer < statistics.layers(); ++layer) {
      for (int head = 0; head < statistics.kv_heads(); ++head) {
        for (const Input input : kInputs) {
          const char* what = input == Input::kText ? "text" : "image";
          fn(fmt::format("{}.{}.{}.{}", letter, layer, head, what), statistics.of(kind, layer, head, input));
        }
      }
    }
  }
}

std::string looks_text(const std::vector<Look>& looks) {
  Json json = Json::array();
  for (const Look& look : looks) {
    Json layers = Json::array();
    for (const model::LayerKvScales& layer : look.scales.layers) {
      layers.push_back({{"k", layer.k}, {"v", layer.v}});
      if (layer.q) layers.back()["q"] = *layer.q;
    }
    json.push_back({{"requests", look.requests}, {"tokens", look.tokens}, {"layers", layers}});
  }
  return json.dump();
}

std::vector<Look> parse_looks(const std::string& text) {
  std::vector<Look> looks;
  for (const Json& json : Json::parse(text)) {
    Look look{json.at("requests").get<int>(), json.at("tokens").get<std::int64_t>(), {}};
    for (const Json& layer : json.at("layers")) {
      look.scales.layers.push_back(
          {layer.at("k").get<std::vector<float>>(), layer.at("v").get<std::vector<float>>(), {}, {}});
      if (layer.contains("q")) look.scales.layers.back().q = layer["q"].get<std::vector<float>>();
    }
    looks.push_back(std::move(look));
  }
  return looks;
}

/// Pairs (bin, count).
std::vector<std::int64_t> pairs_of(const MagnitudeHistogram& histogram) {
  std::vector<std::int64_t> pairs;
  histogram.for_each([&](int bin, std::int64_t count) { pairs.insert(pairs.end(), {bin, count}); });
  return pairs;
}

}  // namespace

void save_statistics(const std::filesystem::path& path, const KvStatistics& statistics, const std::vector<Look>& looks,
                     const std::string& key) {
  std::vector<model::SafetensorsItem> items;
  for_each_histogram(statistics, [&items](std::string name, const MagnitudeHistogram& histogram) {
    const auto pairs = std::make_shared<std::vector<std::int64_t>>(pairs_of(histogram));
    items.push_back({std::move(name),
                     DType::kI64,
                     {static_cast<std::int64_t>(pairs->size() / 2), 2},
                     [pairs](const model::AppendBytes& append) { append(pairs->data(), pairs->size() * 8); }});
  });
  model::write_safetensors(path, std::move(items), {{"key", key}, {"looks", looks_text(looks)}});
}

bool load_statistics(const std::filesystem::path& path, KvStatistics& statistics, std::vector<Look>& looks,
                     const std::string& key) {
  if (!std::filesystem::exists(path)) return false;
  const model::SafetensorsFile file(path);
  const auto& metadata = file.header().metadata;
  const auto its_key = metadata.find("key");
  const auto its_looks = metadata.find("looks");
  if (its_key == metadata.end() || its_looks == metadata.end() || its_key->second != key) return false;
  const auto damaged = [&path] {
    throw InputError(fmt::format("{}: damaged; delete it, and calibration starts anew", path.string()));
  };
  try {
    looks = parse_looks(its_looks->second);
  } catch (const Json::exception&) {
    damaged();
  }
  for_each_histogram(statistics, [&](const std::string& name, MagnitudeHistogram& histogram) {
    const auto view = file.find(name);
    if (!view || view->dtype != DType::kI64 || view->shape.size() != 2 || view->shape[1] != 2) return damaged();
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(view->elements()));
    if (!pairs.empty()) std::memcpy(pairs.data(), view->data, view->bytes());  // a head without tokens has none
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      if (pairs[i] < 0 || pairs[i] >= MagnitudeHistogram::kBins || pairs[i + 1] < 0) return damaged();
      histogram.add(static_cast<int>(pairs[i]), pairs[i + 1]);
    }
  });
  return true;
}

}  // namespace qwenbench::calibration
