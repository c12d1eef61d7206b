#include "model/kv_scale_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/error.h"
#include "model/safetensors.h"
#include "model/weight_source.h"

namespace qwenbench::model {
namespace {

/// The scale tensors of some files; nothing else of them is looked at.
class ScaleTensors : public TensorTable {
 public:
  void add(const std::filesystem::path& path) {
    const SafetensorsFile& file = *files_.emplace_back(std::make_unique<SafetensorsFile>(path));
    bool holds_scales = false;
    for (const auto& [name, entry] : file.header().tensors) {
      if (!is_kv_scale_name(name)) continue;
      holds_scales = true;
      if (!places_.emplace(name, &file).second) {
        throw InputError(fmt::format("{} and {} both hold {}; name the file that is meant", places_.at(name)->path(),
                                     file.path(), one_line(name, 120)));
      }
    }
    if (holds_scales) holders_.push_back({file.path(), file.header().metadata});
  }

  const std::vector<KvScaleTensors::File>& holders() const { return holders_; }

  bool has_tensor(const std::string& name) const override { return places_.contains(name); }
  std::optional<TensorView> find_tensor(const std::string& name) const override {
    const auto found = places_.find(name);
    return found == places_.end() ? std::nullopt : found->second->find(name);
  }
  std::string place_of(const std::string& name) const override {
    const auto found = places_.find(name);
    return found == places_.end() ? files_.front()->path() : found->second->path();
  }

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> places_;
  std::vector<KvScaleTensors::File> holders_;
};

}  // namespace

KvScaleTensors read_kv_scale_tensors(const std::filesystem::path& path, const TextConfig& text) {
  std::vector<std::filesystem::path> files{path};
  if (std::filesystem::is_directory(path)) {
    files.clear();
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) throw InputError(fmt::format("{}: no safetensors file in this folder", path.string()));
  }
  ScaleTensors tensors;
  for (const auto& file : files) tensors.add(file);
  std::vector<LayerKvScales> layers = read_kv_scales(tensors, text);
  if (layers.empty()) throw InputError(fmt::format("{}: holds no KV scales under any known name", path.string()));
  return {std::move(layers), tensors.holders()};
}

}  // namespace qwenbench::model
