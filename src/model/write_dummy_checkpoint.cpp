#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/dummy_values.h"
#include "model/safetensors.h"
#include "model/weights.h"

namespace qwenbench::model {
namespace {

std::size_t bytes_of(const TensorSpec& spec) { return TensorView{spec.dtype, spec.shape, nullptr}.bytes(); }

void write_shard(const std::filesystem::path& path, const std::vector<TensorSpec>& specs, const TensorIndex& index,
                 std::uint64_t seed) {
  std::vector<SafetensorsItem> items;
  for (const TensorSpec& spec : specs) {
    items.push_back({spec.name, spec.dtype, spec.shape, [&index, spec, seed](const AppendBytes& append) {
                       const auto values = dummy_values(spec, index, seed);
                       append(values.data(), values.size());
                     }});
  }
  write_safetensors(path, std::move(items), {{"format", "pt"}});
}

/// In the order of the model, so that a shard holds whole layers.
std::vector<std::vector<TensorSpec>> cut_into_shards(const std::vector<TensorSpec>& specs, std::size_t shard_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  std::size_t bytes = 0;
  for (const TensorSpec& spec : specs) {
    if (!shards.back().empty() && bytes + bytes_of(spec) > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += bytes_of(spec);
    shards.back().push_back(spec);
  }
  return shards;
}

}  // namespace

void write_dummy_checkpoint(const std::filesystem::path& config_directory, const std::filesystem::path& out,
                            std::uint64_t seed, std::size_t shard_bytes,
                            const std::function<void(std::size_t bytes)>& on_written) {
  const std::vector<TensorSpec> specs = expected_tensors(read_model_config(config_directory));
  TensorIndex index;
  for (const TensorSpec& spec : specs) index.emplace(spec.name, spec);
  std::error_code failed;
  std::filesystem::create_directories(out, failed);
  if (failed) throw InputError(fmt::format("{}: cannot be made ({})", out.string(), failed.message()));
  for (const char* name : {"config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
                           "tokenizer_config.json"}) {
    if (std::filesystem::exists(config_directory / name))
      std::filesystem::copy_file(config_directory / name, out / name,
                                 std::filesystem::copy_options::overwrite_existing);
  }
  const auto shards = cut_into_shards(specs, shard_bytes);
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  std::size_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard(out / name, shards[i], index, seed);
    std::size_t bytes = 0;
    for (const TensorSpec& spec : shards[i]) {
      map[spec.name] = name;
      bytes += bytes_of(spec);
    }
    total += bytes;
    if (on_written) on_written(bytes);
  }
  const nlohmann::ordered_json weight_index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  const std::string text = weight_index.dump(2) + "\n";
  write_file_atomically(out / "model.safetensors.index.json",
                        [&](const AppendBytes& append) { append(text.data(), text.size()); });
}

}  // namespace qwenbench::model
