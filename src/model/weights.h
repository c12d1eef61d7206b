// The tensors of a model, by name: a checkpoint on disk, or seeded random ones of the same shapes (load_format: dummy).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "model/config.h"

namespace qwenbench::model {

/// A tensor as it lies in the (memory-mapped) file: row-major, little-endian. Lives as long as its WeightSource.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;

  std::int64_t elements() const;
  std::size_t bytes() const;
  /// Converted to fp32 (from F32, F16, BF16); other dtypes throw InputError.
  std::vector<float> to_floats() const;
};

/// The weight of one Linear, [n, k] = [out_features, in_features], as it is stored. A backend repacks it; dequantize()
/// is the definition of its values.
class LinearSource {
 public:
  enum class Kind { kDense, kInt4, kFp8Block };
  virtual ~LinearSource() = default;

  Kind kind() const { return kind_; }
  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }

  /// Rows [row_begin, row_end) as fp32 into out[(row_end - row_begin) * k]. int4: (u - zero) * scale rounded to the
  /// scale's dtype; fp8: e4m3 * scale_inv in fp32; dense: converted.
  virtual void dequantize(std::int64_t row_begin, std::int64_t row_end, float* out) const = 0;

  /// kDense only: the stored matrix.
  virtual const TensorView& dense() const;

  /// kInt4 only. Group of column k: group_index().empty() ? k / group_size : group_index()[k].
  virtual int group_size() const;
  virtual DType scale_dtype() const;  // kBF16, kF16 or kF32
  virtual std::span<const std::int32_t> group_index() const;
  /// Codes u in 0..15 of rows [row_begin, row_end): out[rows * k].
  virtual void read_codes(std::int64_t row_begin, std::int64_t row_end, std::uint8_t* out) const;
  /// Scales (fp32) and zero points (0..15; 8 where symmetric): out[rows * (k / group_size)].
  virtual void read_groups(std::int64_t row_begin, std::int64_t row_end, float* scales, std::uint8_t* zeros) const;

  /// kFp8Block only: e4m3 codes [n, k] and fp32 scales [ceil(n/128), ceil(k/128)].
  virtual std::span<const std::uint8_t> fp8_codes() const;
  virtual std::span<const float> fp8_scales() const;

 protected:
  LinearSource(Kind kind, std::int64_t n, std::int64_t k) : kind_(kind), n_(n), k_(k) {}

 private:
  Kind kind_;
  std::int64_t n_, k_;
};

/// KV scales of one attention layer: dequantization multipliers, one value (per tensor) or one per KV head.
struct LayerKvScales {
  std::vector<float> k, v;
  std::optional<std::vector<float>> q;
  std::optional<float> prob;
};

/// All tensors of one model. Immutable and safe to read from several threads.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const ModelConfig& config() const = 0;
  virtual bool has(const std::string& name) const = 0;
  /// Throws InputError where the tensor is missing (naming the nearest) or its shape is not `shape`.
  virtual TensorView tensor(const std::string& name, std::span<const std::int64_t> shape) const = 0;
  /// The Linear `module` ("model.language_model.layers.0.mlp.up_proj"), in whatever form its tensors say.
  virtual std::unique_ptr<LinearSource> linear(const std::string& module, std::int64_t n, std::int64_t k) const = 0;
  /// Scales stored in the checkpoint under any known name, one entry a layer; empty where it has none. Throws
  /// InputError naming the layer where only some layers have them, or one is zero, negative or NaN.
  virtual std::vector<LayerKvScales> kv_scales() const = 0;
  /// Hash of tensor names, dtypes, shapes, a few bytes of each and config.json: identifies the model without reading
  /// all of its data.
  virtual std::string fingerprint() const = 0;
  /// Bytes of all tensors.
  virtual std::size_t total_bytes() const = 0;
  virtual bool is_dummy() const = 0;
};

/// A directory, or a hub id ("org/name") looked up in the local cache ($HF_HUB_CACHE, $HF_HOME/hub,
/// ~/.cache/huggingface/hub). Throws InputError that says the command which would fetch it.
std::filesystem::path find_model(const std::string& name_or_path);

/// Opens by mmap: model.safetensors or the shards of model.safetensors.index.json. Nothing is read but headers.
std::unique_ptr<WeightSource> open_checkpoint(const std::filesystem::path& directory);

/// Seeded random weights of the shapes and quantization that `directory`'s config.json describes; no tensor file
/// needed.
std::unique_ptr<WeightSource> make_dummy_weights(const std::filesystem::path& directory, std::uint64_t seed);

/// Writes those weights as a checkpoint (shards of at most shard_bytes where a tensor allows it, index, the config's
/// files), so that loading can be measured. on_written(bytes) after each shard. Throws InputError where `out` cannot be
/// written.
void write_dummy_checkpoint(const std::filesystem::path& config_directory, const std::filesystem::path& out,
                            std::uint64_t seed, std::size_t shard_bytes = std::size_t{4} << 30,
                            const std::function<void(std::size_t bytes)>& on_written = {});

/// One tensor that a model of this config must have.
struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
};

/// Every tensor of a model in the form its quantization_config describes, from the config alone: the memory plan, dummy
/// weights and checks stand on it.
std::vector<TensorSpec> expected_tensors(const ModelConfig& config);

}  // namespace qwenbench::model
