#include "backend/cuda/device_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/dtype.h"

namespace qwenbench::backend::cuda {
namespace {

using model::LinearSource;

constexpr std::size_t kStagingBytes = std::size_t{32} << 20;
constexpr int kFp8Block = 128;

struct Source {
  std::unique_ptr<LinearSource> stored;
  graph::RowRange rows;
};

StoredForm stored_form(const LinearSource& source) {
  StoredForm stored{source.kind()};
  if (stored.form == WeightForm::kInt4) {
    stored.group_size = source.group_size();
    stored.has_group_index = !source.group_index().empty();
  }
  return stored;
}

void to_bf16(const model::TensorView& view, std::int64_t first, std::int64_t count, std::uint16_t* out) {
  switch (view.dtype) {
    case DType::kBF16:
      std::memcpy(out, reinterpret_cast<const std::uint16_t*>(view.data) + first, static_cast<std::size_t>(count) * 2);
      return;
    case DType::kF16:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = float_to_bf16(fp16_to_float(reinterpret_cast<const std::uint16_t*>(view.data)[first + i]));
      return;
    case DType::kF32:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = float_to_bf16(reinterpret_cast<const float*>(view.data)[first + i]);
      return;
    default:
      throw InputError(fmt::format("a weight has dtype {}; expected BF16, F16 or F32", safetensors_name(view.dtype)));
  }
}

}  // namespace

/// The stored rows and columns that this rank keeps.
struct LinearLoader::Window {
  int row_begin, rows;
  int k_begin, k;
};

/// Two host buffers in turn, so that one is filled while the other travels.
struct LinearLoader::Staging {
  explicit Staging(bool pin) : pinned(pin) {
    for (Half& half : halves) {
      if (pinned)
        half.page_locked.reserve(kStagingBytes);
      else
        half.pageable.resize(kStagingBytes);
    }
  }
  struct Half {
    PinnedArray<std::byte> page_locked;
    std::vector<std::byte> pageable;
    Event sent;
    DeviceArray<std::byte> arrived{kStagingBytes};  // where codes wait to be repacked
  };
  bool pinned;
  Half halves[2];
  int turn = 0;

  /// A buffer that is no longer on its way.
  Half& next() {
    Half& half = halves[turn ^= 1];
    QWENBENCH_CUDA(cudaEventSynchronize(half.sent));
    return half;
  }
  std::byte* host(Half& half) { return pinned ? half.page_locked.get() : half.pageable.data(); }
};

LinearLoader::LinearLoader(const model::WeightSource& source, int rank, int ranks, bool pin_memory, ThreadPool& pool)
    : source_(source), rank_(rank), ranks_(ranks), pool_(pool), staging_(std::make_unique<Staging>(pin_memory)) {}

LinearLoader::~LinearLoader() = default;

void LinearLoader::finish() { stream_.synchronize(); }

DeviceArray<__nv_bfloat16> LinearLoader::load_rows(const model::TensorView& view, std::int64_t row_begin,
                                                   std::int64_t rows) {
  const std::int64_t width = view.elements() / view.shape[0];
  DeviceArray<__nv_bfloat16> out(static_cast<std::size_t>(rows * width));
  const auto chunk = static_cast<std::int64_t>(kStagingBytes / 2);
  for (std::int64_t done = 0; done < rows * width; done += chunk) {
    const std::int64_t count = std::min(chunk, rows * width - done);
    Staging::Half& half = staging_->next();
    auto* host = reinterpret_cast<std::uint16_t*>(staging_->host(half));
    pool_.parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
      to_bf16(view, row_begin * width + done + begin, end - begin, host + begin);
    });
    QWENBENCH_CUDA(
        cudaMemcpyAsync(out.get() + done, host, static_cast<std::size_t>(count) * 2, cudaMemcpyHostToDevice, stream_));
    QWENBENCH_CUDA(cudaEventRecord(half.sent, stream_));
  }
  return out;
}

DeviceLinear LinearLoader::load(const graph::LinearSpec& spec, bool paired) {
  const bool rows_split = spec.shard == graph::Shard::kRows;
  const int k = graph::local_k(spec, ranks_), k_begin = rows_split ? rank_ * k : 0;
  std::vector<Source> parts;
  std::vector<StoredForm> stored;
  DeviceLinear linear;
  linear.k = k;
  std::vector<std::uint16_t> bias;
  for (const auto& part : spec.parts) {
    const auto rows = graph::local_rows(spec, part, rank_, ranks_);
    parts.push_back({source_.linear(part.module, part.module_n, spec.k), rows});
    stored.push_back(stored_form(*parts.back().stored));
    linear.n += rows.count;
    if (!spec.bias) continue;
    const std::int64_t shape[] = {part.module_n};
    const std::vector<float> whole = source_.tensor(part.module + ".bias", shape).to_floats();
    for (int i = 0; i < rows.count; ++i) bias.push_back(float_to_bf16(whole[rows.begin + i]));
  }
  linear.form = gpu_form(spec, stored, rank_, ranks_);
  switch (linear.form) {
    case WeightForm::kDense:
      linear.dense.reserve(static_cast<std::size_t>(linear.n) * k);
      break;
    case WeightForm::kInt4: {
      const int group = parts[0].stored->group_size();
      linear.codes.reserve(kernels::w4_codes_bytes(linear.n, k));
      linear.groups.reserve(kernels::w4_groups_bytes(linear.n, k, group));
      linear.int4 = {linear.codes.get(), linear.groups.get(), linear.n, k, group, paired};
      break;
    }
    case WeightForm::kFp8Block:
      linear.codes.reserve(static_cast<std::size_t>(linear.n) * k);
      linear.groups.reserve(sizeof(float) * ((linear.n + kFp8Block - 1) / kFp8Block) *
                            ((k + kFp8Block - 1) / kFp8Block));
      linear.fp8 = {reinterpret_cast<const std::uint8_t*>(linear.codes.get()),
                    reinterpret_cast<const float*>(linear.groups.get()), linear.n, k};
      break;
  }
  int row_offset = 0;
  for (const Source& part : parts) {
    const Window window{part.rows.begin, part.rows.count, k_begin, k};
    switch (linear.form) {
      case WeightForm::kDense:
        load_dense(linear, *part.stored, window, row_offset);
        break;
      case WeightForm::kInt4:
        load_int4(linear, *part.stored, window, row_offset);
        break;
      case WeightForm::kFp8Block:
        load_fp8(linear, *part.stored, window, row_offset);
        break;
    }
    row_offset += part.rows.count;
  }
  if (!bias.empty()) {
    linear.bias.reserve(bias.size());
    copy_to_device(reinterpret_cast<std::uint16_t*>(linear.bias.get()), bias.data(), bias.size());
  }
  finish();  // `parts` own what is on its way
  return linear;
}

void LinearLoader::load_dense(DeviceLinear& linear, const LinearSource& source, const Window& window, int row_offset) {
  const int rows_each = std::max<int>(1, static_cast<int>(kStagingBytes / 2 / static_cast<std::size_t>(window.k)));
  for (int done = 0; done < window.rows; done += rows_each) {
    const int rows = std::min(rows_each, window.rows - done);
    Staging::Half& half = staging_->next();
    auto* host = reinterpret_cast<std::uint16_t*>(staging_->host(half));
    pool_.parallel_for(rows, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> whole;
      for (std::int64_t row = begin; row < end; ++row) {
        std::uint16_t* out = host + row * window.k;
        const std::int64_t stored_row = window.row_begin + done + row;
        if (source.kind() == LinearSource::Kind::kDense) {
          to_bf16(source.dense(), stored_row * source.k() + window.k_begin, window.k, out);
          continue;
        }
        whole.resize(static_cast<std::size_t>(source.k()));
        source.dequantize(stored_row, stored_row + 1, whole.data());
        for (int i = 0; i < window.k; ++i) out[i] = float_to_bf16(whole[window.k_begin + i]);
      }
    });
    QWENBENCH_CUDA(cudaMemcpyAsync(linear.dense.get() + std::int64_t{row_offset + done} * window.k, host,
                                   std::size_t{2} * rows * window.k, cudaMemcpyHostToDevice, stream_));
    QWENBENCH_CUDA(cudaEventRecord(half.sent, stream_));
  }
}

void LinearLoader::load_int4(DeviceLinear& linear, const LinearSource& source, const Window& window, int row_offset) {
  const int group = source.group_size(), groups = window.k / group, first_group = window.k_begin / group;
  const auto stored_groups = static_cast<std::size_t>(source.k() / group);
  const std::size_t row_bytes = window.k / 2 + std::size_t{3} * groups;
  const int rows_each = std::max<int>(64, static_cast<int>(kStagingBytes / row_bytes) / 64 * 64);
  for (int done = 0; done < window.rows; done += rows_each) {
    const int rows = std::min(rows_each, window.rows - done);
    Staging::Half& half = staging_->next();
    // Codes, then scales, then zero points.
    const std::size_t scales_at = static_cast<std::size_t>(rows) * (window.k / 2);
    const std::size_t zeros_at = scales_at + std::size_t{2} * rows * groups;
    std::byte* host = staging_->host(half);
    pool_.parallel_for(rows, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(source.k())), zeros(stored_groups);
      std::vector<float> scales(stored_groups);
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t stored_row = window.row_begin + done + row;
        source.read_codes(stored_row, stored_row + 1, codes.data());
        source.read_groups(stored_row, stored_row + 1, scales.data(), zeros.data());
        auto* out = reinterpret_cast<std::uint8_t*>(host) + row * (window.k / 2);
        const std::uint8_t* in = codes.data() + window.k_begin;
        for (int i = 0; i < window.k / 2; ++i) out[i] = static_cast<std::uint8_t>(in[2 * i] | in[2 * i + 1] << 4);
        auto* scale_out = reinterpret_cast<std::uint16_t*>(host + scales_at) + row * groups;
        auto* zero_out = reinterpret_cast<std::uint8_t*>(host + zeros_at) + row * groups;
        for (int g = 0; g < groups; ++g) {
          scale_out[g] = float_to_bf16(scales[first_group + g]);
          zero_out[g] = zeros[first_group + g];
        }
      }
    });
    std::byte* device = half.arrived.get();
    QWENBENCH_CUDA(cudaMemcpyAsync(device, host, zeros_at + static_cast<std::size_t>(rows) * groups,
                                   cudaMemcpyHostToDevice, stream_));
    kernels::w4_repack(
        reinterpret_cast<const std::uint8_t*>(device), reinterpret_cast<const std::uint16_t*>(device + scales_at),
        reinterpret_cast<const std::uint8_t*>(device + zeros_at), rows, row_offset + done, linear.int4, stream_);
    QWENBENCH_CUDA(cudaGetLastError());
    QWENBENCH_CUDA(cudaEventRecord(half.sent, stream_));
  }
}

void LinearLoader::load_fp8(DeviceLinear& linear, const LinearSource& source, const Window& window, int row_offset) {
  const int blocks_k = (window.k + kFp8Block - 1) / kFp8Block, block_rows = (window.rows + kFp8Block - 1) / kFp8Block;
  const auto stored_blocks_k = (source.k() + kFp8Block - 1) / kFp8Block;
  QWENBENCH_CUDA(
      cudaMemcpy2DAsync(linear.codes.get() + std::int64_t{row_offset} * window.k, window.k,
                        source.fp8_codes().data() + std::int64_t{window.row_begin} * source.k() + window.k_begin,
                        source.k(), window.k, window.rows, cudaMemcpyHostToDevice, stream_));
  std::vector<float> scales(static_cast<std::size_t>(blocks_k) * block_rows);
  for (int r = 0; r < block_rows; ++r) {
    for (int c = 0; c < blocks_k; ++c)
      scales[static_cast<std::size_t>(r) * blocks_k + c] =
          source.fp8_scales()[(window.row_begin / kFp8Block + r) * stored_blocks_k + window.k_begin / kFp8Block + c];
  }
  copy_to_device(reinterpret_cast<float*>(linear.groups.get()) + std::int64_t{row_offset / kFp8Block} * blocks_k,
                 scales.data(), scales.size());
}

}  // namespace qwenbench::backend::cuda
