#include "model/linear_int4.h"

#include <fmt/format.h>

#include <vector>

#include "base/error.h"

namespace qwenbench::model {
namespace {

float round_to(DType dtype, float value) {
  if (dtype == DType::kBF16) return round_to_bf16(value);
  if (dtype == DType::kF16) return fp16_to_float(float_to_fp16(value));
  return value;
}

}  // namespace

void Int4Linear::dequantize(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const auto rows = static_cast<std::size_t>(row_end - row_begin);
  const auto columns = static_cast<std::size_t>(k()), group_count = static_cast<std::size_t>(groups());
  std::vector<std::uint8_t> codes(rows * columns), zeros(rows * group_count);
  std::vector<float> scales(rows * group_count);
  read_codes(row_begin, row_end, codes.data());
  read_groups(row_begin, row_end, scales.data(), zeros.data());
  const std::span<const std::int32_t> index = group_index();
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      const std::size_t group =
          index.empty() ? column / static_cast<std::size_t>(group_size_) : static_cast<std::size_t>(index[column]);
      const std::size_t at = row * group_count + group;
      const int difference = codes[row * columns + column] - zeros[at];
      out[row * columns + column] = round_to(scale_dtype_, static_cast<float>(difference) * scales[at]);
    }
  }
}

int group_size_of(const LinearTensors& tensors, const std::string& scale_name, std::size_t group_axis) {
  const auto scales = tensors.table.find_tensor(scale_name);
  const std::string place = tensors.table.place_of(scale_name);
  if (!scales) throw InputError(fmt::format("{}: tensor {} is missing", place, scale_name));
  const std::int64_t groups = scales->shape.size() == 2 ? scales->shape[group_axis] : 0;
  if (groups < 1 || tensors.k % groups != 0) {
    throw InputError(fmt::format("{}: tensor {} has shape {}, which does not divide {} columns into groups", place,
                                 scale_name, shape_text(scales->shape), tensors.k));
  }
  return static_cast<int>(tensors.k / groups);
}

float load_float(const TensorView& view, std::int64_t index) {
  if (view.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, view.data + index * 4, sizeof(value));
    return value;
  }
  std::uint16_t half;
  std::memcpy(&half, view.data + index * 2, sizeof(half));
  return view.dtype == DType::kBF16 ? bf16_to_float(half) : fp16_to_float(half);
}

}  // namespace qwenbench::model
