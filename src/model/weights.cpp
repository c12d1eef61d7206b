#include "model/weights.h"

#include <fmt/format.h>

#include <cstring>
#include <stdexcept>

#include "base/error.h"

namespace qwenbench::model {

std::int64_t TensorView::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::size_t TensorView::bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype); }

std::vector<float> TensorView::to_floats() const {
  std::vector<float> out(static_cast<std::size_t>(elements()));
  const auto* halves = reinterpret_cast<const std::uint16_t*>(data);
  switch (dtype) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), data, bytes());
      return out;
    case DType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_float(halves[i]);
      return out;
    case DType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = fp16_to_float(halves[i]);
      return out;
    default:
      throw InputError(fmt::format("a tensor of {} where F32, F16 or BF16 is needed", safetensors_name(dtype)));
  }
}

namespace {

[[noreturn]] void wrong_kind(const char* accessor) {
  throw std::logic_error(fmt::format("LinearSource::{} called on a weight of another kind", accessor));
}

}  // namespace

const TensorView& LinearSource::dense() const { wrong_kind("dense"); }
int LinearSource::group_size() const { wrong_kind("group_size"); }
DType LinearSource::scale_dtype() const { wrong_kind("scale_dtype"); }
std::span<const std::int32_t> LinearSource::group_index() const { wrong_kind("group_index"); }
void LinearSource::read_codes(std::int64_t, std::int64_t, std::uint8_t*) const { wrong_kind("read_codes"); }
void LinearSource::read_groups(std::int64_t, std::int64_t, float*, std::uint8_t*) const { wrong_kind("read_groups"); }
std::span<const std::uint8_t> LinearSource::fp8_codes() const { wrong_kind("fp8_codes"); }
std::span<const float> LinearSource::fp8_scales() const { wrong_kind("fp8_scales"); }

}  // namespace qwenbench::model
