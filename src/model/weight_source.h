// What a checkpoint and dummy weights share: look-ups with checks, KV scales, identity. Private to src/model.
#pragma once

#include <map>
#include <string>

#include "model/tensor_table.h"

namespace qwenbench::model {

/// Dtype and shape of every tensor, by name.
using TensorIndex = std::map<std::string, TensorSpec>;

class TableWeightSource : public WeightSource, public TensorTable {
 public:
  const ModelConfig& config() const override { return config_; }
  bool has(const std::string& name) const override { return has_tensor(name); }
  TensorView tensor(const std::string& name, std::span<const std::int64_t> shape) const override;
  std::unique_ptr<LinearSource> linear(const std::string& module, std::int64_t n, std::int64_t k) const override;
  std::vector<LayerKvScales> kv_scales() const override;

 protected:
  explicit TableWeightSource(ModelConfig config) : config_(std::move(config)) {}
  /// For the message about a missing tensor.
  virtual std::vector<std::string> tensor_names() const = 0;

  ModelConfig config_;
};

/// KV scales of every layer from the tensors of `table` (names of compressed-tensors, ModelOpt, and the old single
/// one); empty where there are none.
std::vector<LayerKvScales> read_kv_scales(const TensorTable& table, const TextConfig& text);

/// A tensor that carries a KV scale under any name that read_kv_scales() knows.
bool is_kv_scale_name(const std::string& name);

/// Hash of the tensors' names, dtypes and shapes, of config.json, and of a few bytes of each tensor in `values`: a
/// model of the same form with other weights is another one, whose scales must not be taken. KV scales do not count, so
/// that a checkpoint is the same model with and without them (an exported overlay must accept the scales of its base).
std::string model_fingerprint(const std::vector<TensorSpec>& tensors, const std::filesystem::path& config_file,
                              const std::string& kind, const TensorTable* values = nullptr);

}  // namespace qwenbench::model
