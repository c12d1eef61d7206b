#include "model/tensor_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace qwenbench::model {

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

TensorView checked_tensor(const TensorTable& table, const std::string& name, std::span<const std::int64_t> shape,
                          std::span<const DType> dtypes) {
  const auto view = table.find_tensor(name);
  if (!view) throw InputError(fmt::format("{}: tensor {} is missing", table.place_of(name), name));
  if (!std::equal(view->shape.begin(), view->shape.end(), shape.begin(), shape.end())) {
    throw InputError(fmt::format("{}: tensor {} has shape {}, config.json asks for {}", table.place_of(name), name,
                                 shape_text(view->shape), shape_text(shape)));
  }
  if (!dtypes.empty() && std::find(dtypes.begin(), dtypes.end(), view->dtype) == dtypes.end()) {
    std::string known;
    for (const DType dtype : dtypes) known += fmt::format("{}{}", known.empty() ? "" : " or ", safetensors_name(dtype));
    throw InputError(fmt::format("{}: tensor {} has dtype {}, must be {}", table.place_of(name), name,
                                 safetensors_name(view->dtype), known));
  }
  return *view;
}

namespace {

struct Form {
  const char* name;
  std::unique_ptr<LinearSource> (*read)(const LinearTensors&);
  bool present;
};

/// Tensors of quantized forms that this program does not read, so that they are not taken for a dense weight.
constexpr const char* kUnknownForms[] = {"weight_scale_2", "weight_global_scale", "g_idx", "input_scale"};

bool is_fp8(const TensorTable& table, const std::string& name) {
  const auto view = table.find_tensor(name);
  return view && view->dtype == DType::kF8E4M3;
}

}  // namespace

std::unique_ptr<LinearSource> make_linear(const TensorTable& table, const std::string& module, std::int64_t n,
                                          std::int64_t k, std::shared_ptr<const void> storage) {
  const auto has = [&](const char* suffix) { return table.has_tensor(module + "." + suffix); };
  const bool block_scale = has("weight_scale_inv");
  const std::array<Form, 4> forms{{
      {"dense", read_dense_linear, has("weight") && !block_scale},
      {"FP8 block", read_fp8_block_linear, block_scale},
      {"compressed-tensors pack-quantized", read_pack_quantized_linear, has("weight_packed")},
      {"AutoAWQ GEMM", read_awq_linear, has("qweight")},
  }};
  const Form* chosen = nullptr;
  for (const Form& form : forms) {
    if (!form.present) continue;
    if (chosen != nullptr) {
      throw InputError(fmt::format("{}: module {} is stored in two forms, {} and {}",
                                   table.place_of(module + ".weight"), module, chosen->name, form.name));
    }
    chosen = &form;
  }
  const std::string place = table.place_of(module + ".weight");
  if (chosen == nullptr) {
    throw InputError(
        fmt::format("{}: module {} has no weight in a known form (weight, weight_packed, qweight)", place, module));
  }
  for (const char* suffix : kUnknownForms) {
    if (has(suffix))
      throw InputError(
          fmt::format("{}: module {} has a {}: this quantized form is not supported", place, module, suffix));
  }
  if (chosen == &forms[0] && (has("weight_scale") || is_fp8(table, module + ".weight"))) {
    throw InputError(fmt::format(
        "{}: module {} is quantized without blocks: only FP8 blocks (weight_scale_inv) are read", place, module));
  }
  return chosen->read({table, module, n, k, std::move(storage)});
}

}  // namespace qwenbench::model
