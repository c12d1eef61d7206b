// KV scales that a checkpoint carries. Dequantization multipliers (x = fp8 * scale), one number per tensor or per head.
#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "model/weight_source.h"

namespace qwenbench::model {
namespace {

/// Names below "model.language_model.layers.N.self_attn.", by who writes them.
constexpr const char* kKeyNames[] = {"k_scale", "k_proj.k_scale", "kv_scale"};  // compressed-tensors, ModelOpt, old
constexpr const char* kValueNames[] = {"v_scale", "v_proj.v_scale", "kv_scale"};
constexpr const char* kQueryNames[] = {"q_scale", "q_proj.q_scale"};
constexpr const char* kProbNames[] = {"prob_scale"};
constexpr const char* kAttention = ".self_attn.";

class LayerReader {
 public:
  LayerReader(const TensorTable& table, const TextConfig& text, int layer)
      : table_(table),
        text_(text),
        layer_(layer),
        prefix_(fmt::format("model.language_model.layers.{}{}", layer, kAttention)) {}

  /// The scale under the first of `names` that is there; empty where none is.
  std::vector<float> read(std::span<const char* const> names, int heads) const {
    std::vector<float> found;
    for (const char* name : names) {
      if (!table_.has_tensor(prefix_ + name)) continue;
      const std::vector<float> values = checked_values(prefix_ + name, heads);
      if (!found.empty() && found != values) fail(prefix_ + name, "differs from the same scale under another name");
      found = values;
    }
    return found;
  }

  LayerKvScales scales() const {
    LayerKvScales out{read(kKeyNames, text_.num_kv_heads), read(kValueNames, text_.num_kv_heads), {}, {}};
    if (out.k.empty() != out.v.empty())
      fail(prefix_ + (out.k.empty() ? "k_scale" : "v_scale"), "missing beside the other one");
    if (auto q = read(kQueryNames, text_.num_heads); !q.empty()) out.q = std::move(q);
    if (const auto prob = read(kProbNames, 1); !prob.empty()) out.prob = prob.front();
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& message) const {
    throw InputError(fmt::format("{}: KV scale of layer {}: {}: {}", table_.place_of(name), layer_, name, message));
  }

  std::vector<float> checked_values(const std::string& name, int heads) const {
    const TensorView view = *table_.find_tensor(name);
    if (view.dtype != DType::kF32 && view.dtype != DType::kBF16 && view.dtype != DType::kF16) {
      fail(name, fmt::format("has dtype {}, must be F32, BF16 or F16", safetensors_name(view.dtype)));
    }
    // [] or [1] per tensor; [H, 1, 1] per head, also written [H] or [H, 1]; q per KV head where H is theirs.
    const std::int64_t first = view.shape.empty() ? 1 : view.shape[0];
    if (view.elements() != first || (first != 1 && first != heads && first != text_.num_kv_heads)) {
      fail(name, fmt::format("has shape {}, must be [1] or [{}, 1, 1]", shape_text(view.shape), heads));
    }
    std::vector<float> values = view.to_floats();
    for (const float value : values) {
      if (!std::isfinite(value) || value <= 0) fail(name, fmt::format("is {}, must be a positive number", value));
    }
    return values;
  }

  const TensorTable& table_;
  const TextConfig& text_;
  int layer_;
  std::string prefix_;
};

}  // namespace

bool is_kv_scale_name(const std::string& name) {
  const auto at = name.find(kAttention);
  if (at == std::string::npos) return false;
  const std::string_view tail = std::string_view(name).substr(at + std::string_view(kAttention).size());
  for (const auto& names : {std::span<const char* const>(kKeyNames), std::span<const char* const>(kValueNames),
                            std::span<const char* const>(kQueryNames), std::span<const char* const>(kProbNames)}) {
    for (const char* known : names) {
      if (tail == known) return true;
    }
  }
  return false;
}

std::vector<LayerKvScales> read_kv_scales(const TensorTable& table, const TextConfig& text) {
  std::vector<LayerKvScales> layers;
  int missing = -1;
  for (int layer = 0; layer < text.num_layers; ++layer) {
    LayerKvScales scales = LayerReader(table, text, layer).scales();
    if (scales.k.empty() && missing < 0) missing = layer;
    if (!scales.k.empty()) layers.push_back(std::move(scales));
  }
  if (!layers.empty() && missing >= 0) {
    throw InputError(fmt::format(
        "{}: layer {} has no KV scales though other layers have; use kv_scales \"unit\" or \"calibrate\"",
        table.place_of(fmt::format("model.language_model.layers.{}{}k_scale", missing, kAttention)), missing));
  }
  return layers;
}

}  // namespace qwenbench::model
