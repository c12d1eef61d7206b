// Linears stored as one matrix, and as FP8 E4M3 with a scale per block of 128 x 128.
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "model/tensor_table.h"

namespace qwenbench::model {
namespace {

constexpr DType kFp8[] = {DType::kF8E4M3};
constexpr std::int64_t kBlock = 128;

class DenseLinear : public LinearSource {
 public:
  DenseLinear(const LinearTensors& tensors, TensorView weight)
      : LinearSource(Kind::kDense, tensors.n, tensors.k), weight_(std::move(weight)), storage_(tensors.storage) {}

  void dequantize(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    const auto stride = static_cast<std::size_t>(k()) * size_of(weight_.dtype);
    const TensorView rows{
        weight_.dtype, {row_end - row_begin, k()}, weight_.data + static_cast<std::size_t>(row_begin) * stride};
    const std::vector<float> values = rows.to_floats();
    if (!values.empty()) std::memcpy(out, values.data(), values.size() * sizeof(float));
  }

  const TensorView& dense() const override { return weight_; }

 private:
  TensorView weight_;
  std::shared_ptr<const void> storage_;
};

class Fp8BlockLinear : public LinearSource {
 public:
  Fp8BlockLinear(const LinearTensors& tensors, const TensorView& weight, const TensorView& scales)
      : LinearSource(Kind::kFp8Block, tensors.n, tensors.k),
        codes_(reinterpret_cast<const std::uint8_t*>(weight.data), weight.bytes()),
        scales_(scales.to_floats()),
        storage_(tensors.storage) {}

  void dequantize(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    const std::int64_t blocks = (k() + kBlock - 1) / kBlock;
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      const std::uint8_t* codes = codes_.data() + row * k();
      const float* scales = scales_.data() + row / kBlock * blocks;
      for (std::int64_t column = 0; column < k(); ++column)
        *out++ = e4m3_to_float(codes[column]) * scales[column / kBlock];
    }
  }

  std::span<const std::uint8_t> fp8_codes() const override { return codes_; }
  std::span<const float> fp8_scales() const override { return scales_; }

 private:
  std::span<const std::uint8_t> codes_;
  std::vector<float> scales_;
  std::shared_ptr<const void> storage_;
};

}  // namespace

std::unique_ptr<LinearSource> read_dense_linear(const LinearTensors& tensors) {
  const std::string name = tensors.module + ".weight";
  std::vector<std::int64_t> shape{tensors.n, tensors.k};
  // The patch embedding is stored as a convolution's kernel [n, C, T, H, W]: the same bytes as [n, C * T * H * W].
  const auto stored = tensors.table.find_tensor(name);
  if (stored && stored->shape.size() == 5 && stored->shape[0] == tensors.n &&
      stored->elements() == tensors.n * tensors.k) {
    shape = stored->shape;
  }
  TensorView weight = checked_tensor(tensors.table, name, shape, kFloats);
  weight.shape = {tensors.n, tensors.k};
  return std::make_unique<DenseLinear>(tensors, std::move(weight));
}

std::unique_ptr<LinearSource> read_fp8_block_linear(const LinearTensors& tensors) {
  const std::int64_t shape[] = {tensors.n, tensors.k};
  const std::int64_t blocks[] = {(tensors.n + kBlock - 1) / kBlock, (tensors.k + kBlock - 1) / kBlock};
  const TensorView weight = checked_tensor(tensors.table, tensors.module + ".weight", shape, kFp8);
  const TensorView scales = checked_tensor(tensors.table, tensors.module + ".weight_scale_inv", blocks, kFloats);
  return std::make_unique<Fp8BlockLinear>(tensors, weight, scales);
}

}  // namespace qwenbench::model
