// What the 4-bit forms have in common: w[n][k] = (u[n][k] - zero[n][g]) * scale[n][g], rounded to the scale's dtype.
#pragma once

#include <cstring>

#include "model/tensor_table.h"

namespace qwenbench::model {

/// Codes and zero points are packed into words.
inline constexpr DType kWord[] = {DType::kI32};
inline constexpr std::int64_t kPerWord = 8;

class Int4Linear : public LinearSource {
 public:
  void dequantize(std::int64_t row_begin, std::int64_t row_end, float* out) const override;
  int group_size() const override { return group_size_; }
  DType scale_dtype() const override { return scale_dtype_; }
  std::span<const std::int32_t> group_index() const override { return {}; }

 protected:
  Int4Linear(const LinearTensors& tensors, int group_size, DType scale_dtype)
      : LinearSource(Kind::kInt4, tensors.n, tensors.k),
        group_size_(group_size),
        scale_dtype_(scale_dtype),
        storage_(tensors.storage) {}

  std::int64_t groups() const { return k() / group_size_; }

 private:
  int group_size_;
  DType scale_dtype_;
  std::shared_ptr<const void> storage_;
};

/// Columns per group, from the second (or first) dimension of the scales. Throws InputError naming the tensor where the
/// groups do not divide the columns evenly.
int group_size_of(const LinearTensors& tensors, const std::string& scale_name, std::size_t group_axis);

inline std::uint32_t load_word(const TensorView& view, std::int64_t index) {
  std::uint32_t word;
  std::memcpy(&word, view.data + index * 4, sizeof(word));
  return word;
}

/// Element `index` of an F32, F16 or BF16 tensor.
float load_float(const TensorView& view, std::int64_t index);

}  // namespace qwenbench::model
