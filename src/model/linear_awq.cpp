// AutoAWQ "GEMM": stored transposed, [K, N]. Eight neighbouring output columns fill an int32; nibble i holds column
// 8c + kOrder[i]. Zero points lie the same way, without an offset.
#include <fmt/format.h>

#include "base/error.h"
#include "model/linear_int4.h"

namespace qwenbench::model {
namespace {

/// The nibble that holds output column j of its word: the inverse of the order 0,2,4,6,1,3,5,7.
constexpr int kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

class AwqLinear : public Int4Linear {
 public:
  AwqLinear(const LinearTensors& tensors, int group_size, TensorView codes, TensorView zeros, TensorView scales)
      : Int4Linear(tensors, group_size, scales.dtype),
        codes_(std::move(codes)),
        zeros_(std::move(zeros)),
        scales_(std::move(scales)) {}

  void read_codes(std::int64_t row_begin, std::int64_t row_end, std::uint8_t* out) const override {
    // Columns outside, rows inside: the file is read in its own order.
    for (std::int64_t column = 0; column < k(); ++column) {
      for (std::int64_t row = row_begin; row < row_end; ++row) {
        out[(row - row_begin) * k() + column] = nibble(codes_, column, row);
      }
    }
  }

  void read_groups(std::int64_t row_begin, std::int64_t row_end, float* scales, std::uint8_t* zeros) const override {
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      for (std::int64_t group = 0; group < groups(); ++group) {
        *scales++ = load_float(scales_, group * n() + row);
        *zeros++ = nibble(zeros_, group, row);
      }
    }
  }

 private:
  std::uint8_t nibble(const TensorView& view, std::int64_t line, std::int64_t row) const {
    const std::uint32_t word = load_word(view, line * (n() / kPerWord) + row / kPerWord);
    return static_cast<std::uint8_t>(word >> (4 * kNibble[row % kPerWord]) & 0xfu);
  }

  TensorView codes_, zeros_, scales_;
};

}  // namespace

std::unique_ptr<LinearSource> read_awq_linear(const LinearTensors& tensors) {
  const TensorTable& table = tensors.table;
  const int group_size = group_size_of(tensors, tensors.module + ".scales", 0);
  const std::int64_t groups = tensors.k / group_size;
  if (tensors.n % kPerWord != 0) {
    throw InputError(fmt::format("{}: module {}: {} output features, AWQ needs a multiple of 8",
                                 table.place_of(tensors.module + ".qweight"), tensors.module, tensors.n));
  }
  const std::int64_t code_shape[] = {tensors.k, tensors.n / kPerWord}, zero_shape[] = {groups, tensors.n / kPerWord};
  const std::int64_t scale_shape[] = {groups, tensors.n};
  return std::make_unique<AwqLinear>(tensors, group_size,
                                     checked_tensor(table, tensors.module + ".qweight", code_shape, kWord),
                                     checked_tensor(table, tensors.module + ".qzeros", zero_shape, kWord),
                                     checked_tensor(table, tensors.module + ".scales", scale_shape, kFloats));
}

}  // namespace qwenbench::model
