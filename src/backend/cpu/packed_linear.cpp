#include "backend/cpu/packed_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace qwenbench::backend::cpu {
namespace {

using Form = PackedMatrix::Form;
using model::LinearSource;

/// The stored rows and columns that one rank keeps.
struct Window {
  int row_begin, rows;
  int k_begin, k;
};

int row_of(const Window& window, int panel, int lane) {
  return window.row_begin + std::min(panel * kPanel + lane, window.rows - 1);
}

/// Calls fill(panel, lane, row) for all lanes; lanes beyond the last row repeat it and are never read back.
template <class Fill>
void for_lanes(ThreadPool& pool, const Window& window, int panels, Fill fill) {
  pool.parallel_for(panels, [&](std::int64_t begin, std::int64_t end) {
    for (int panel = static_cast<int>(begin); panel < end; ++panel)
      for (int lane = 0; lane < kPanel; ++lane) fill(panel, lane, row_of(window, panel, lane));
  });
}

template <class Element>
void pack_elements(PackedPart& part, const Element* stored, std::int64_t stride, const Window& window,
                   ThreadPool& pool) {
  const int panels = part.matrix.panels();
  part.data.resize(static_cast<std::size_t>(panels) * window.k * kPanel * sizeof(Element));
  Element* out = reinterpret_cast<Element*>(part.data.data());
  for_lanes(pool, window, panels, [&](int panel, int lane, int row) {
    const Element* in = stored + row * stride + window.k_begin;
    Element* column = out + static_cast<std::int64_t>(panel) * window.k * kPanel + lane;
    for (int k = 0; k < window.k; ++k)
      std::memcpy(column + static_cast<std::int64_t>(k) * kPanel, in + k, sizeof(Element));
  });
}

void pack_dense(PackedPart& part, const LinearSource& source, const Window& window, ThreadPool& pool) {
  const model::TensorView& view = source.dense();
  switch (view.dtype) {
    case DType::kF32:
      part.matrix.form = Form::kF32;
      return pack_elements(part, reinterpret_cast<const float*>(view.data), source.k(), window, pool);
    case DType::kF16:
      part.matrix.form = Form::kF16;
      return pack_elements(part, reinterpret_cast<const std::uint16_t*>(view.data), source.k(), window, pool);
    case DType::kBF16:
      part.matrix.form = Form::kBF16;
      return pack_elements(part, reinterpret_cast<const std::uint16_t*>(view.data), source.k(), window, pool);
    default:
      throw InputError("a Linear of dtype " + std::string(safetensors_name(view.dtype)) + " has no scales");
  }
}

void set_groups_of_k(PackedPart& part, const LinearSource& source, const Window& window, const std::string& module) {
  PackedMatrix& m = part.matrix;
  m.group_size = source.group_size();
  if (!source.group_index().empty()) {
    const auto window_groups =
        source.group_index().subspan(static_cast<std::size_t>(window.k_begin), static_cast<std::size_t>(window.k));
    part.group_of_k.assign(window_groups.begin(), window_groups.end());
    m.groups = static_cast<int>(source.k() / m.group_size);  // any group may appear in this rank's columns
    return;
  }
  if (window.k_begin % m.group_size != 0 || window.k % m.group_size != 0) {
    throw InputError(
        fmt::format("{}: its groups of {} inputs cannot be split over the ranks; lower tensor_parallel_size", module,
                    m.group_size));
  }
  m.groups = window.k / m.group_size;
}

void pack_int4(PackedPart& part, const LinearSource& source, const Window& window, const std::string& module,
               ThreadPool& pool) {
  PackedMatrix& m = part.matrix;
  m.form = Form::kInt4;
  m.scale_is_f16 = source.scale_dtype() == DType::kF16;
  set_groups_of_k(part, source, window, module);
  const int first_group = part.group_of_k.empty() ? window.k_begin / m.group_size : 0;
  const std::int64_t stored_groups = source.k() / m.group_size;
  const int panels = m.panels();
  part.data.assign(static_cast<std::size_t>(panels) * window.k * kPanel / 2, 0);
  part.scales.resize(static_cast<std::size_t>(panels) * m.groups * kPanel);
  part.zeros.resize(part.scales.size());
  pool.parallel_for(panels, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(source.k())),
        zeros(static_cast<std::size_t>(stored_groups));
    std::vector<float> scales(static_cast<std::size_t>(stored_groups));
    for (int panel = static_cast<int>(begin); panel < end; ++panel) {
      for (int lane = 0; lane < kPanel; ++lane) {
        const int row = row_of(window, panel, lane);
        source.read_codes(row, row + 1, codes.data());
        source.read_groups(row, row + 1, scales.data(), zeros.data());
        std::uint8_t* out = part.data.data() + static_cast<std::int64_t>(panel) * window.k * (kPanel / 2) + lane % 8;
        for (int k = 0; k < window.k; ++k)
          out[k * std::int64_t{kPanel / 2}] |=
              static_cast<std::uint8_t>(codes[window.k_begin + k] << (lane < 8 ? 0 : 4));
        const std::int64_t group_base = static_cast<std::int64_t>(panel) * m.groups * kPanel + lane;
        for (int g = 0; g < m.groups; ++g) {
          const float scale = scales[first_group + g];
          part.scales[group_base + g * kPanel] = m.scale_is_f16 ? float_to_fp16(scale) : float_to_bf16(scale);
          part.zeros[group_base + g * kPanel] = zeros[first_group + g];
        }
      }
    }
  });
}

void pack_fp8(PackedPart& part, const LinearSource& source, const Window& window, const std::string& module,
              ThreadPool& pool) {
  PackedMatrix& m = part.matrix;
  constexpr int kBlock = 128;
  m.form = Form::kE4M3;
  m.group_size = kBlock;
  if (window.k_begin % kBlock != 0)
    throw InputError(
        fmt::format("{}: its blocks of 128 inputs cannot be split over the ranks; lower tensor_parallel_size", module));
  m.groups = (window.k + kBlock - 1) / kBlock;
  pack_elements(part, source.fp8_codes().data(), source.k(), window, pool);
  const std::int64_t stored_groups = (source.k() + kBlock - 1) / kBlock;
  part.block_scales.resize(static_cast<std::size_t>(m.panels()) * m.groups * kPanel);
  for_lanes(pool, window, m.panels(), [&](int panel, int lane, int row) {
    for (int g = 0; g < m.groups; ++g) {
      part.block_scales[(static_cast<std::size_t>(panel) * m.groups + g) * kPanel + lane] =
          source.fp8_scales()[(row / kBlock) * stored_groups + window.k_begin / kBlock + g];
    }
  });
}

PackedPart pack_part(const LinearSource& source, const Window& window, const std::string& module, int segments,
                     ThreadPool& pool) {
  PackedPart part;
  part.matrix.n = window.rows;
  part.matrix.k = window.k;
  part.matrix.segments = segments;
  switch (source.kind()) {
    case LinearSource::Kind::kDense:
      pack_dense(part, source, window, pool);
      break;
    case LinearSource::Kind::kInt4:
      pack_int4(part, source, window, module, pool);
      break;
    case LinearSource::Kind::kFp8Block:
      pack_fp8(part, source, window, module, pool);
      break;
  }
  part.matrix.data = part.data.data();
  part.matrix.scales = part.scales.data();
  part.matrix.zeros = part.zeros.data();
  part.matrix.block_scales = part.block_scales.data();
  part.matrix.group_of_k = part.group_of_k.empty() ? nullptr : part.group_of_k.data();
  return part;
}

void append_bias(PackedLinear& packed, const graph::LinearPart& part, const graph::RowRange& rows,
                 const model::WeightSource& source) {
  const std::int64_t shape[] = {part.module_n};
  const std::vector<float> whole = source.tensor(part.module + ".bias", shape).to_floats();
  packed.bias.insert(packed.bias.end(), whole.begin() + rows.begin, whole.begin() + rows.begin + rows.count);
}

}  // namespace

std::size_t PackedPart::bytes() const {
  return data.size() + 2 * scales.size() + zeros.size() + 4 * block_scales.size() + 4 * group_of_k.size();
}

std::size_t PackedLinear::bytes() const {
  std::size_t total = 4 * bias.size();
  for (const auto& part : parts) total += part.bytes();
  return total;
}

PackedLinear pack_linear(const graph::LinearSpec& spec, const model::WeightSource& source, int rank, int ranks,
                         ThreadPool& pool) {
  const bool rows_split = spec.shard == graph::Shard::kRows;
  const int parts_of_k = rows_split ? ranks : 1;
  if (parts_of_k > 1 && (kSegments % ranks != 0 || spec.k % kSegments != 0)) {
    throw InputError(
        fmt::format("{}: {} inputs cannot be summed over {} ranks in a fixed order; on a CPU tensor_parallel_size "
                    "is 1, 2, 4 or 8",
                    spec.parts[0].module, spec.k, ranks));
  }
  PackedLinear packed;
  packed.k = spec.k / parts_of_k;
  for (const auto& part : spec.parts) {
    const auto rows = graph::local_rows(spec, part, rank, ranks);
    const auto stored = source.linear(part.module, part.module_n, spec.k);
    const Window window{rows.begin, rows.count, rows_split ? rank * packed.k : 0, packed.k};
    packed.parts.push_back(pack_part(*stored, window, part.module, kSegments / parts_of_k, pool));
    packed.n += rows.count;
    packed.panels += packed.parts.back().matrix.panels();
    if (spec.bias) append_bias(packed, part, rows, source);
  }
  return packed;
}

}  // namespace qwenbench::backend::cpu
