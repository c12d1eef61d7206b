// compressed-tensors "pack-quantized", 4 bits. Eight values fill an int32, the lowest nibble first; values are stored
// plus 8 (so a symmetric weight has zero point 8). Zero points are packed along the rows.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "model/linear_int4.h"

namespace qwenbench::model {
namespace {

constexpr DType kLong[] = {DType::kI64};
constexpr std::uint8_t kSymmetricZero = 8;

std::int64_t words(std::int64_t values) { return (values + kPerWord - 1) / kPerWord; }

class PackQuantizedLinear : public Int4Linear {
 public:
  PackQuantizedLinear(const LinearTensors& tensors, int group_size, TensorView packed, TensorView scales,
                      std::optional<TensorView> zeros, std::span<const std::int32_t> index)
      : Int4Linear(tensors, group_size, scales.dtype),
        packed_(std::move(packed)),
        scales_(std::move(scales)),
        zeros_(std::move(zeros)),
        index_(index) {}

  std::span<const std::int32_t> group_index() const override { return index_; }

  void read_codes(std::int64_t row_begin, std::int64_t row_end, std::uint8_t* out) const override {
    const std::int64_t row_words = words(k());
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      for (std::int64_t column = 0; column < k(); column += kPerWord) {
        std::uint32_t word = load_word(packed_, row * row_words + column / kPerWord);
        const std::int64_t count = std::min(kPerWord, k() - column);
        for (std::int64_t i = 0; i < count; ++i, word >>= 4) *out++ = static_cast<std::uint8_t>(word & 0xfu);
      }
    }
  }

  void read_groups(std::int64_t row_begin, std::int64_t row_end, float* scales, std::uint8_t* zeros) const override {
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      for (std::int64_t group = 0; group < groups(); ++group) {
        *scales++ = load_float(scales_, row * groups() + group);
        *zeros++ = zeros_ ? static_cast<std::uint8_t>(
                                load_word(*zeros_, row / kPerWord * groups() + group) >> (row % kPerWord * 4) & 0xfu)
                          : kSymmetricZero;
      }
    }
  }

 private:
  TensorView packed_, scales_;
  std::optional<TensorView> zeros_;
  std::span<const std::int32_t> index_;
};

void check_weight_shape(const LinearTensors& tensors) {
  const std::string name = tensors.module + ".weight_shape";
  if (!tensors.table.has_tensor(name)) return;
  const std::int64_t two[] = {2};
  constexpr DType kIntegers[] = {kLong[0], kWord[0]};
  const TensorView view = checked_tensor(tensors.table, name, two, kIntegers);
  std::int64_t values[2];
  for (int i = 0; i < 2; ++i) {
    if (view.dtype == DType::kI64)
      std::memcpy(&values[i], view.data + i * 8, 8);
    else
      values[i] = static_cast<std::int32_t>(load_word(view, i));
  }
  if (values[0] != tensors.n || values[1] != tensors.k) {
    throw InputError(fmt::format("{}: tensor {} says [{}, {}], config.json asks for [{}, {}]",
                                 tensors.table.place_of(name), name, values[0], values[1], tensors.n, tensors.k));
  }
}

/// Empty where the module has none, or one that its writer never set (all -1). Every group must have as many columns as
/// the next: the reference sorts the columns by group and cuts them evenly.
std::span<const std::int32_t> read_group_index(const LinearTensors& tensors, std::int64_t groups) {
  const std::string name = tensors.module + ".weight_g_idx";
  if (!tensors.table.has_tensor(name)) return {};
  const auto fail = [&](const std::string& message) {
    throw InputError(fmt::format("{}: tensor {}: {}", tensors.table.place_of(name), name, message));
  };
  const std::int64_t shape[] = {tensors.k};
  const TensorView view = checked_tensor(tensors.table, name, shape, kWord);
  const std::span index(reinterpret_cast<const std::int32_t*>(view.data), static_cast<std::size_t>(tensors.k));
  if (std::all_of(index.begin(), index.end(), [](std::int32_t group) { return group == -1; })) return {};
  std::vector<std::int64_t> columns(static_cast<std::size_t>(groups));
  for (const std::int32_t group : index) {
    if (group < 0 || group >= groups) fail(fmt::format("holds group {}, must be 0 to {}", group, groups - 1));
    ++columns[static_cast<std::size_t>(group)];
  }
  for (const std::int64_t count : columns) {
    if (count != tensors.k / groups)
      fail(fmt::format("gives a group {} columns, must be {}", count, tensors.k / groups));
  }
  return index;
}

}  // namespace

std::unique_ptr<LinearSource> read_pack_quantized_linear(const LinearTensors& tensors) {
  const TensorTable& table = tensors.table;
  const std::string scale_name = tensors.module + ".weight_scale", zero_name = tensors.module + ".weight_zero_point";
  const int group_size = group_size_of(tensors, scale_name, 1);
  const std::int64_t groups = tensors.k / group_size;
  const std::int64_t packed_shape[] = {tensors.n, words(tensors.k)}, scale_shape[] = {tensors.n, groups};
  const std::int64_t zero_shape[] = {words(tensors.n), groups};
  check_weight_shape(tensors);
  TensorView packed = checked_tensor(table, tensors.module + ".weight_packed", packed_shape, kWord);
  TensorView scales = checked_tensor(table, scale_name, scale_shape, kFloats);
  std::optional<TensorView> zeros;
  if (table.has_tensor(zero_name)) zeros = checked_tensor(table, zero_name, zero_shape, kWord);
  return std::make_unique<PackQuantizedLinear>(tensors, group_size, std::move(packed), std::move(scales),
                                               std::move(zeros), read_group_index(tensors, groups));
}

}  // namespace qwenbench::model
