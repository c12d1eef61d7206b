#include "calibration/scale_export.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calibration/scale_file.h"
#include "model/safetensors.h"

namespace qwenbench::calibration {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Format = model::QuantizationConfig::Format;

constexpr const char* kScaleFile = "kv_scales.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kSingleLink = "model-00001-of-00001.safetensors";  // some loaders prefer kSingle to the index

/// `name` is below "model.language_model.layers.N.self_attn."
model::SafetensorsItem scale_item(int layer, const char* name, const std::vector<float>& values, bool scalar_shape) {
  std::vector<std::int64_t> shape{static_cast<std::int64_t>(values.size())};
  if (values.size() > 1) shape = {shape[0], 1, 1};
  if (scalar_shape) shape.clear();
  return {fmt::format("model.language_model.layers.{}.self_attn.{}", layer, name), DType::kF32, shape,
          [values](const model::AppendBytes& append) { append(values.data(), values.size() * sizeof(float)); }};
}

/// Per-tensor scales stand for every head where another layer has them per head.
std::vector<float> widened(const std::vector<float>& values, bool per_head, int heads) {
  if (!per_head || values.size() > 1) return values;
  return std::vector<float>(static_cast<std::size_t>(heads), values[0]);
}

std::vector<model::SafetensorsItem> compressed_tensors_items(const ExportJob& job) {
  const bool per_head = job.scales.granularity == "head";
  const int heads = job.config.text.num_kv_heads;
  std::vector<model::SafetensorsItem> items;
  for (int layer = 0; layer < job.config.text.num_layers; ++layer) {
    const model::LayerKvScales& scales = job.scales.layers[static_cast<std::size_t>(layer)];
    items.push_back(scale_item(layer, "k_scale", widened(scales.k, per_head, heads), false));
    items.push_back(scale_item(layer, "v_scale", widened(scales.v, per_head, heads), false));
    if (scales.q) items.push_back(scale_item(layer, "q_scale", widened(*scales.q, per_head, heads), false));
  }
  return items;
}

/// "format" is what Transformers wants to see of a safetensors file; other keys of the metadata it passes over.
void write_scale_tensors(const fs::path& folder, std::vector<model::SafetensorsItem> items, const ExportJob& job) {
  model::write_safetensors(folder / kScaleFile, std::move(items),
                           {{"format", "pt"}, {kFingerprintKey, job.model_fingerprint}});
}

/// A link for everything in the checkpoint's folder but what the overlay has of its own. Hub caches hold links
/// themselves: the new ones lead to the file.
void link_checkpoint(const fs::path& checkpoint, const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == kIndex || name == kScaleFile || name.starts_with(".")) continue;
    fs::create_symlink(fs::canonical(entry.path()), folder / (name == kSingle ? kSingleLink : name));
  }
}

Json parse_file(const fs::path& path) {
  Json json = Json::parse(read_file(path), nullptr, false);
  if (!json.is_object()) throw InputError(fmt::format("{}: is not a JSON object", path.string()));
  return json;
}

/// The checkpoint's index, or one made for a single file, with the scales: vLLM drops files that it does not name.
Json index_with(const std::vector<model::SafetensorsItem>& items, const fs::path& checkpoint) {
  Json index;
  if (fs::exists(checkpoint / kIndex)) {
    index = parse_file(checkpoint / kIndex);
  } else {
    const model::SafetensorsFile file(checkpoint / kSingle);
    Json& map = index["weight_map"];
    std::size_t bytes = 0;
    for (const auto& [name, entry] : file.header().tensors) {
      map[name] = kSingleLink;
      bytes += entry.end - entry.begin;
    }
    index["metadata"]["total_size"] = bytes;
  }
  std::size_t added = 0;
  for (const model::SafetensorsItem& item : items) {
    if (index["weight_map"].contains(item.name)) {
      throw InputError(fmt::format("{}: holds KV scales already ({}); export for the checkpoint without them",
                                   checkpoint.string(), item.name));
    }
    index["weight_map"][item.name] = kScaleFile;
    std::size_t size = sizeof(float);
    for (const std::int64_t extent : item.shape) size *= static_cast<std::size_t>(extent);
    added += size;
  }
  Json& total = index["metadata"]["total_size"];
  if (total.is_number_integer()) total = total.get<std::size_t>() + added;
  return index;
}

/// FP8 checkpoints need no scheme: their loader looks for the scales by itself.
Json config_with_scheme(const ExportJob& job) {
  Json config = parse_file(job.checkpoint / "config.json");
  if (job.config.quantization.format == Format::kFp8Block) return config;
  const bool per_head = job.scales.granularity == "head";
  const Json scheme{{"num_bits", 8},
                    {"type", "float"},
                    {"strategy", per_head ? "attn_head" : "tensor"},
                    {"symmetric", true},
                    {"dynamic", false}};
  if (job.config.quantization.format == Format::kNone) {
    config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                     {"format", "dense"},
                                     {"quantization_status", "compressed"},
                                     {"config_groups", Json::object()},
                                     {"ignore", Json::array()}};
  }
  config["quantization_config"]["kv_cache_scheme"] = scheme;
  return config;
}

/// fill(temporary folder), then the rename; an earlier export is replaced.
void write_folder(const fs::path& path, const std::function<void(const fs::path&)>& fill) {
  const fs::path temporary = path.string() + fmt::format(".tmp-{}", ::getpid());
  std::error_code ignored;
  try {
    fs::create_directories(temporary);
    fill(temporary);
    fs::remove_all(path);
    fs::rename(temporary, path);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw InputError(fmt::format("{} cannot be written: {}", path.string(), error.code().message()));
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void export_compressed_tensors(const ExportJob& job, const fs::path& path) {
  write_folder(path, [&](const fs::path& folder) {
    const auto items = compressed_tensors_items(job);
    link_checkpoint(job.checkpoint, folder);
    write_file_atomically(folder / "config.json", config_with_scheme(job).dump(2) + "\n");
    write_file_atomically(folder / kIndex, index_with(items, job.checkpoint).dump(2) + "\n");
    write_scale_tensors(folder, items, job);
  });
}

void export_modelopt(const ExportJob& job, const fs::path& path) {
  write_folder(path, [&](const fs::path& folder) {
    std::vector<model::SafetensorsItem> items;
    for (int layer = 0; layer < job.config.text.num_layers; ++layer) {
      const model::LayerKvScales& scales = job.scales.layers[static_cast<std::size_t>(layer)];
      items.push_back(scale_item(layer, "k_proj.k_scale", scales.k, true));
      items.push_back(scale_item(layer, "v_proj.v_scale", scales.v, true));
    }
    write_scale_tensors(folder, std::move(items), job);
    const Json config{{"producer", {{"name", "modelopt"}}},
                      {"quantization", {{"quant_algo", nullptr}, {"kv_cache_quant_algo", "FP8"}}}};
    write_file_atomically(folder / "hf_quant_config.json", config.dump(2) + "\n");
  });
}

float largest_of(const std::vector<float>& k, const std::vector<float>& v) {
  return std::max(*std::max_element(k.begin(), k.end()), *std::max_element(v.begin(), v.end()));
}

std::vector<std::string> export_sglang(const ExportJob& job, const fs::path& path) {
  Json layers = Json::object();
  int merged = 0;
  for (std::size_t layer = 0; layer < job.scales.layers.size(); ++layer) {
    const model::LayerKvScales& scales = job.scales.layers[layer];
    std::set<float> different(scales.k.begin(), scales.k.end());
    different.insert(scales.v.begin(), scales.v.end());
    if (different.size() > 1) ++merged;
    layers[std::to_string(layer)] = largest_of(scales.k, scales.v);
  }
  Json ranks = Json::object();
  for (int rank = 0; rank < job.ranks; ++rank) ranks[std::to_string(rank)] = layers;
  const Json json{{"model_type", kSglangModelType},
                  {kFingerprintKey, job.model_fingerprint},
                  {"kv_cache", {{"dtype", "float8_e4m3fn"}, {"scaling_factor", ranks}}}};
  write_file_atomically(path, json.dump(2) + "\n");
  std::vector<std::string> losses;
  if (merged > 0) {
    losses.push_back(
        fmt::format("SGLang's form has one scale for K and V of a layer: in {} of {} layers they differ, and the "
                    "largest stands for all",
                    merged, job.scales.layers.size()));
  }
  losses.push_back(fmt::format(
      "SGLang takes the file for {} rank(s) only, as many as it lists, and only where its Qwen3-VL class has "
      "load_kv_cache_scales: a version without refuses --quantization-param-path",
      job.ranks));
  return losses;
}

}  // namespace

std::vector<ExportFormat> parse_export_formats(std::string_view text) {
  std::vector<ExportFormat> formats;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string name(text.substr(begin, end - begin));
    if (name == "compressed-tensors" || name == "vllm") {
      formats.push_back(ExportFormat::kCompressedTensors);
    } else if (name == "modelopt") {
      formats.push_back(ExportFormat::kModelOpt);
    } else if (name == "sglang") {
      formats.push_back(ExportFormat::kSglang);
    } else {
      throw InputError(
          fmt::format("--export {}: unknown; use compressed-tensors, modelopt or sglang", one_line(name, 60)));
    }
    begin = end + 1;
  }
  return formats;
}

fs::path export_path(ExportFormat format, const fs::path& output) {
  const char* suffix = format == ExportFormat::kCompressedTensors ? "-compressed-tensors"
                       : format == ExportFormat::kModelOpt        ? "-modelopt"
                                                                  : "-sglang.json";
  return output.parent_path() / (output.stem().string() + suffix);
}

void check_export(ExportFormat format, const model::ModelConfig& config, const std::string& granularity,
                  const fs::path& path) {
  if (format == ExportFormat::kCompressedTensors && config.quantization.format == Format::kAwqGemm) {
    throw InputError(
        "--export compressed-tensors: this checkpoint is in AutoAWQ's form, whose loader in vLLM reads no KV scales; "
        "use "
        "sglang, or a compressed-tensors checkpoint of the model");
  }
  if (format == ExportFormat::kModelOpt && granularity == "head") {
    throw InputError("--export modelopt: the form has one scale a layer; use --granularity tensor");
  }
  if (format == ExportFormat::kSglang) return require_writable(path);
  if (fs::exists(path) && !fs::exists(path / kScaleFile)) {
    throw InputError(
        fmt::format("{} exists and is no earlier export; move it away or choose another -o", path.string()));
  }
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  require_writable(parent / fmt::format(".{}.probe", path.filename().string()));
}

std::vector<std::string> export_scales(ExportFormat format, const ExportJob& job, const fs::path& path) {
  check_export(format, job.config, job.scales.granularity, path);
  std::vector<std::string> losses;
  if (format == ExportFormat::kCompressedTensors) {
    export_compressed_tensors(job, path);
    if (job.scales.granularity == "head") {
      losses.push_back("scales per head need a version of vLLM that knows the strategy attn_head");
    }
    return losses;
  }
  if (format == ExportFormat::kSglang) losses = export_sglang(job, path);
  if (format == ExportFormat::kModelOpt) {
    export_modelopt(job, path);
    losses.push_back("ModelOpt's names stand in a file of their own: merge it into a checkpoint that ModelOpt made");
  }
  if (job.scales.layers.front().q) losses.push_back("the form has no place for q_scale: it is left out");
  return losses;
}

}  // namespace qwenbench::calibration
