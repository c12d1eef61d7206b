// A checkpoint on disk: one model.safetensors, or shards named by model.safetensors.index.json.
#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "model/json_object.h"
#include "model/safetensors.h"
#include "model/weight_source.h"

namespace qwenbench::model {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::size_t kMaxShards = 4096;

struct Location {
  const SafetensorsFile* file;
  const SafetensorsEntry* entry;
};

/// The files of a model and where each tensor lies.
struct Shards {
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  std::map<std::string, Location> tensors;

  const SafetensorsFile& open(const std::filesystem::path& path) {
    files.push_back(std::make_unique<SafetensorsFile>(path));
    return *files.back();
  }
};

Shards open_single(const std::filesystem::path& path) {
  Shards shards;
  const SafetensorsFile& file = shards.open(path);
  for (const auto& [name, entry] : file.header().tensors) shards.tensors.emplace(name, Location{&file, &entry});
  return shards;
}

/// A plain name in the model's own folder: an index cannot point elsewhere.
void check_shard_name(const std::string& name, const std::string& index) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw InputError(
        fmt::format("{}: weight_map: \"{}\" is not the name of a file in this folder", index, one_line(name, 80)));
  }
}

/// Every tensor of the named files counts; where two files hold one name, weight_map says which.
void add_shard(Shards& shards, const SafetensorsFile& file, const std::string& shard,
               const std::map<std::string, std::string>& weight_map, const std::string& index) {
  for (const auto& [name, entry] : file.header().tensors) {
    const auto mapped = weight_map.find(name);
    if (mapped != weight_map.end() && mapped->second != shard) continue;
    if (!shards.tensors.emplace(name, Location{&file, &entry}).second) {
      throw InputError(fmt::format("{}: tensor {} lies in two files and weight_map does not say in which", index,
                                   one_line(name, 120)));
    }
  }
}

Shards open_sharded(const std::filesystem::path& directory) {
  const std::string index = (directory / kIndex).string();
  const nlohmann::json json = parse_json_file(directory / kIndex);
  const JsonObject weight_map_object = JsonObject(json, index).object("weight_map");
  std::map<std::string, std::string> weight_map;
  std::map<std::string, const SafetensorsFile*> by_name;
  for (const auto& [name, shard] : weight_map_object.value().items()) {
    if (!shard.is_string()) weight_map_object.fail(name, "must be a file name");
    weight_map[name] = shard.get<std::string>();
    check_shard_name(weight_map[name], index);
    by_name[weight_map[name]] = nullptr;
  }
  if (by_name.empty()) throw InputError(fmt::format("{}: weight_map is empty", index));
  if (by_name.size() > kMaxShards) throw InputError(fmt::format("{}: more than {} files", index, kMaxShards));
  Shards shards;
  for (auto& [shard, file] : by_name) {
    const auto path = directory / shard;
    if (!std::filesystem::exists(path)) {
      throw InputError(fmt::format("{}: the index names {}, which is missing: fetch the model again",
                                   directory.string(), one_line(shard, 80)));
    }
    file = &shards.open(path);
    add_shard(shards, *file, shard, weight_map, index);
  }
  for (const auto& [name, shard] : weight_map) {
    if (!by_name[shard]->header().tensors.contains(name)) {
      throw InputError(fmt::format("{}: tensor {} is not in {}", index, one_line(name, 120), one_line(shard, 80)));
    }
  }
  return shards;
}

Shards open_shards(const std::filesystem::path& directory) {
  if (std::filesystem::exists(directory / kIndex)) return open_sharded(directory);
  if (std::filesystem::exists(directory / kSingle)) return open_single(directory / kSingle);
  throw InputError(fmt::format("{} has neither {} nor {}: no weights (load_format \"dummy\" runs without)",
                               directory.string(), kSingle, kIndex));
}

class Checkpoint : public TableWeightSource {
 public:
  explicit Checkpoint(const std::filesystem::path& directory)
      : TableWeightSource(read_model_config(directory)), directory_(directory), shards_(open_shards(directory)) {
    const bool has_head =
        has_tensor("lm_head.weight") || has_tensor("lm_head.weight_packed") || has_tensor("lm_head.qweight");
    if (!has_head) config_.text.tie_word_embeddings = true;
  }

  bool has_tensor(const std::string& name) const override { return shards_.tensors.contains(name); }

  std::optional<TensorView> find_tensor(const std::string& name) const override {
    const auto found = shards_.tensors.find(name);
    if (found == shards_.tensors.end()) return std::nullopt;
    return found->second.file->view(*found->second.entry);
  }

  std::string place_of(const std::string& name) const override {
    const auto found = shards_.tensors.find(name);
    return found == shards_.tensors.end() ? directory_.string() : found->second.file->path();
  }

  std::string fingerprint() const override {
    std::vector<TensorSpec> tensors;
    for (const auto& [name, location] : shards_.tensors) {
      tensors.push_back({name, location.entry->dtype, location.entry->shape});
    }
    return model_fingerprint(tensors, directory_ / "config.json", "checkpoint", this);
  }

  std::size_t total_bytes() const override {
    std::size_t bytes = 0;
    for (const auto& [name, location] : shards_.tensors) bytes += location.entry->end - location.entry->begin;
    return bytes;
  }

  bool is_dummy() const override { return false; }

 protected:
  std::vector<std::string> tensor_names() const override {
    std::vector<std::string> names;
    for (const auto& item : shards_.tensors) names.push_back(item.first);
    return names;
  }

 private:
  std::filesystem::path directory_;
  Shards shards_;
};

}  // namespace

std::unique_ptr<WeightSource> open_checkpoint(const std::filesystem::path& directory) {
  return std::make_unique<Checkpoint>(directory);
}

}  // namespace qwenbench::model
