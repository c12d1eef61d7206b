// load_format "dummy": a model of the config's shapes with seeded random weights, made when asked for.
#include <fmt/format.h>

#include <mutex>

#include "model/dummy_values.h"
#include "model/weight_source.h"

namespace qwenbench::model {
namespace {

/// The tensors of one 4-bit Linear, made for it alone: a backend repacks them, so they go when the LinearSource goes.
class LinearTable : public TensorTable {
 public:
  LinearTable(const TensorIndex& index, std::uint64_t seed) : index_(index), seed_(seed) {}

  bool has_tensor(const std::string& name) const override { return index_.contains(name); }

  std::optional<TensorView> find_tensor(const std::string& name) const override {
    const auto spec = index_.find(name);
    if (spec == index_.end()) return std::nullopt;
    auto [made, is_new] = tensors_->try_emplace(name);
    if (is_new) made->second = dummy_values(spec->second, index_, seed_);
    return TensorView{spec->second.dtype, spec->second.shape, made->second.data()};
  }

  std::string place_of(const std::string&) const override { return "dummy weights"; }
  std::shared_ptr<const void> storage() const { return tensors_; }

 private:
  const TensorIndex& index_;
  std::uint64_t seed_;
  std::shared_ptr<std::map<std::string, std::vector<std::byte>>> tensors_ =
      std::make_shared<std::map<std::string, std::vector<std::byte>>>();
};

class DummyWeights : public TableWeightSource {
 public:
  DummyWeights(const std::filesystem::path& directory, std::uint64_t seed)
      : TableWeightSource(read_model_config(directory)), directory_(directory), seed_(seed) {
    for (TensorSpec& spec : expected_tensors(config_)) {
      made_.try_emplace(spec.name);
      index_.emplace(spec.name, std::move(spec));
    }
  }

  bool has_tensor(const std::string& name) const override { return index_.contains(name); }

  std::optional<TensorView> find_tensor(const std::string& name) const override {
    const auto spec = index_.find(name);
    if (spec == index_.end()) return std::nullopt;
    Tensor& tensor = made_.at(name);
    std::call_once(tensor.once, [&] { tensor.bytes = dummy_values(spec->second, index_, seed_); });
    return TensorView{spec->second.dtype, spec->second.shape, tensor.bytes.data()};
  }

  std::string place_of(const std::string&) const override {
    return fmt::format("dummy weights of {}", directory_.string());
  }

  std::unique_ptr<LinearSource> linear(const std::string& module, std::int64_t n, std::int64_t k) const override {
    if (has_tensor(module + ".weight")) return TableWeightSource::linear(module, n, k);
    const LinearTable table(index_, seed_);
    return make_linear(table, module, n, k, table.storage());
  }

  std::string fingerprint() const override {
    std::vector<TensorSpec> tensors;
    for (const auto& item : index_) tensors.push_back(item.second);
    return model_fingerprint(tensors, directory_ / "config.json", fmt::format("dummy {}", seed_));
  }

  std::size_t total_bytes() const override {
    std::size_t bytes = 0;
    for (const auto& [name, spec] : index_) bytes += TensorView{spec.dtype, spec.shape, nullptr}.bytes();
    return bytes;
  }

  bool is_dummy() const override { return true; }

 protected:
  std::vector<std::string> tensor_names() const override {
    std::vector<std::string> names;
    for (const auto& item : index_) names.push_back(item.first);
    return names;
  }

 private:
  struct Tensor {
    std::once_flag once;
    std::vector<std::byte> bytes;
  };

  std::filesystem::path directory_;
  std::uint64_t seed_;
  TensorIndex index_;
  mutable std::map<std::string, Tensor> made_;
};

}  // namespace

std::unique_ptr<WeightSource> make_dummy_weights(const std::filesystem::path& directory, std::uint64_t seed) {
  return std::make_unique<DummyWeights>(directory, seed);
}

}  // namespace qwenbench::model
