// What the readers of quantized forms need of a model: named tensors. Private to src/model.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "model/weights.h"

namespace qwenbench::model {

class TensorTable {
 public:
  virtual ~TensorTable() = default;
  virtual bool has_tensor(const std::string& name) const = 0;
  virtual std::optional<TensorView> find_tensor(const std::string& name) const = 0;
  /// Where the tensor lies, for messages: the file's path.
  virtual std::string place_of(const std::string& name) const = 0;
};

/// What dense weights and scales may be stored as.
inline constexpr DType kFloats[] = {DType::kBF16, DType::kF16, DType::kF32};

std::string shape_text(std::span<const std::int64_t> shape);

/// The tensor, which must exist. Throws InputError naming place and tensor where its shape is another, or its dtype is
/// none of `dtypes` (empty: any).
TensorView checked_tensor(const TensorTable& table, const std::string& name, std::span<const std::int64_t> shape,
                          std::span<const DType> dtypes = {});

/// The Linear `module` [n, k] in the form that its tensors say. Throws InputError naming the module where there is no
/// form, more than one, an unknown one, or a wrong shape or dtype. `storage` keeps alive what the table's views point
/// at, if that is not the table itself.
std::unique_ptr<LinearSource> make_linear(const TensorTable& table, const std::string& module, std::int64_t n,
                                          std::int64_t k, std::shared_ptr<const void> storage = nullptr);

/// The readers of one form each; make_linear() chooses.
struct LinearTensors {
  const TensorTable& table;
  std::string module;
  std::int64_t n, k;
  std::shared_ptr<const void> storage;
};
std::unique_ptr<LinearSource> read_dense_linear(const LinearTensors& tensors);
std::unique_ptr<LinearSource> read_fp8_block_linear(const LinearTensors& tensors);
std::unique_ptr<LinearSource> read_pack_quantized_linear(const LinearTensors& tensors);
std::unique_ptr<LinearSource> read_awq_linear(const LinearTensors& tensors);

}  // namespace qwenbench::model
