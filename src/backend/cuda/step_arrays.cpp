#include "backend/cuda/step_arrays.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace qwenbench::backend::cuda {
namespace {

/// One sequence as an attention kernel sees it.
struct Entry {
  const StepInput::Sequence* sequence;
  int first_row, num_rows;
};

using Group = std::vector<Entry>;

struct HostArrays {
  std::vector<std::int64_t> slots;
  std::vector<int> ids, positions, output_rows, feature_of_token, feature_of_output;
  Group decode, decode_outputs, prefill;
};

void add_tokens(const StepInput& input, const StepShape& shape, int block_size, HostArrays& host) {
  host.ids.assign(static_cast<std::size_t>(shape.tokens), 0);
  host.positions.assign(static_cast<std::size_t>(shape.tokens) * 3, 0);
  host.slots.assign(static_cast<std::size_t>(shape.tokens), -1);
  std::copy(input.tokens.begin(), input.tokens.end(), host.ids.begin());
  for (std::size_t t = 0; t < input.positions.size(); ++t)
    std::copy(input.positions[t].begin(), input.positions[t].end(), host.positions.begin() + 3 * t);
  for (const auto& sequence : input.sequences) {
    for (int i = 0; i < sequence.num_rows; ++i) {
      const int position = sequence.kv_length - sequence.num_rows + i;
      host.slots[sequence.first_row + i] =
          std::int64_t{sequence.blocks[position / block_size]} * block_size + position % block_size;
    }
  }
}

void add_features(const StepInput& input, const StepShape& shape, HostArrays& host) {
  host.feature_of_token.assign(static_cast<std::size_t>(shape.tokens), -1);
  int feature = 0;  // the step's features lie one span after another
  for (const auto& span : input.visual)
    for (int i = 0; i < span.num_rows; ++i) host.feature_of_token[span.first_row + i] = feature++;
  host.output_rows.assign(static_cast<std::size_t>(shape.outputs), 0);
  host.feature_of_output.assign(static_cast<std::size_t>(shape.outputs), -1);
  for (std::size_t i = 0; i < input.output_rows.size(); ++i) {
    host.output_rows[i] = input.output_rows[i];
    host.feature_of_output[i] = host.feature_of_token[input.output_rows[i]];
  }
}

void add_sequences(const StepInput& input, HostArrays& host) {
  for (const auto& sequence : input.sequences) {
    if (sequence.num_rows > 1) {
      host.prefill.push_back({&sequence, sequence.first_row, sequence.num_rows});
      continue;
    }
    host.decode.push_back({&sequence, sequence.first_row, 1});
    const auto begin = input.output_rows.begin();
    const auto output = static_cast<std::size_t>(std::find(begin, input.output_rows.end(), sequence.first_row) - begin);
    if (output < input.output_rows.size()) host.decode_outputs.push_back({&sequence, static_cast<int>(output), 1});
  }
}

/// Offsets into one block of memory, each array at a multiple of 16 bytes.
class Layout {
 public:
  template <class T>
  std::size_t add(std::size_t count) {
    const std::size_t at = size_;
    size_ += (count * sizeof(T) + 15) / 16 * 16;
    return at;
  }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_ = 0;
};

struct GroupOffsets {
  std::size_t blocks, kv_length, first_row, num_rows;
  std::size_t places;
};

GroupOffsets lay_out(Layout& layout, const Group& group, const StepShape& shape) {
  GroupOffsets at{};
  at.places = std::max(group.size(), static_cast<std::size_t>(shape.decode_places));
  at.blocks = layout.add<int>(at.places * shape.max_blocks);
  at.kv_length = layout.add<int>(at.places);
  at.first_row = layout.add<int>(at.places);
  at.num_rows = layout.add<int>(at.places);
  return at;
}

template <class T>
void put(std::byte* block, std::size_t at, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(block + at, values.data(), values.size() * sizeof(T));
}

SequenceGroup fill(std::byte* host, const std::byte* device, const GroupOffsets& at, const Group& group,
                   const StepShape& shape) {
  SequenceGroup result;
  auto* blocks = reinterpret_cast<int*>(host + at.blocks);
  auto* kv_length = reinterpret_cast<int*>(host + at.kv_length);
  auto* first_row = reinterpret_cast<int*>(host + at.first_row);
  auto* num_rows = reinterpret_cast<int*>(host + at.num_rows);
  for (std::size_t i = 0; i < at.places; ++i) {
    const bool used = i < group.size();
    kv_length[i] = used ? group[i].sequence->kv_length : 0;
    first_row[i] = used ? group[i].first_row : static_cast<int>(i);
    num_rows[i] = used ? group[i].num_rows : 0;
    if (!used) continue;
    const auto& table = group[i].sequence->blocks;
    std::copy_n(table.begin(), std::min<std::size_t>(table.size(), shape.max_blocks), blocks + i * shape.max_blocks);
    result.max_kv_length = std::max(result.max_kv_length, kv_length[i]);
    result.total_kv += kv_length[i];
  }
  const auto on_device = [&](std::size_t offset) { return reinterpret_cast<const int*>(device + offset); };
  result.batch.block_table = on_device(at.blocks);
  result.batch.max_blocks = shape.max_blocks;
  result.batch.kv_length = on_device(at.kv_length);
  result.batch.first_row = on_device(at.first_row);
  result.batch.num_rows = on_device(at.num_rows);
  result.batch.num_seqs = static_cast<int>(at.places);
  result.count = static_cast<int>(group.size());
  return result;
}

}  // namespace

bool StepArrays::upload(const StepInput& input, const StepShape& shape, int block_size, cudaStream_t stream) {
  // The last layer's attention over prompts searches them.
  if (!std::is_sorted(input.output_rows.begin(), input.output_rows.end()))
    throw std::logic_error("the output rows of a step do not ascend");
  HostArrays arrays;
  add_tokens(input, shape, block_size, arrays);
  add_features(input, shape, arrays);
  add_sequences(input, arrays);
  StepShape prefill_shape = shape;
  prefill_shape.decode_places = 0;

  Layout layout;
  const std::size_t slots_at = layout.add<std::int64_t>(arrays.slots.size());
  const std::size_t ids_at = layout.add<int>(arrays.ids.size());
  const std::size_t positions_at = layout.add<int>(arrays.positions.size());
  const std::size_t output_rows_at = layout.add<int>(arrays.output_rows.size());
  const std::size_t token_features_at = layout.add<int>(arrays.feature_of_token.size());
  const std::size_t output_features_at = layout.add<int>(arrays.feature_of_output.size());
  const GroupOffsets decode_at = lay_out(layout, arrays.decode, shape);
  const GroupOffsets decode_outputs_at = lay_out(layout, arrays.decode_outputs, shape);
  const GroupOffsets prefill_at = lay_out(layout, arrays.prefill, prefill_shape);

  QWENBENCH_CUDA(cudaEventSynchronize(copied_));
  host_.reserve(layout.size());
  const bool moved = device_.reserve(layout.size());
  std::byte* host = host_.get();
  const std::byte* device = device_.get();
  put(host, slots_at, arrays.slots);
  put(host, ids_at, arrays.ids);
  put(host, positions_at, arrays.positions);
  put(host, output_rows_at, arrays.output_rows);
  put(host, token_features_at, arrays.feature_of_token);
  put(host, output_features_at, arrays.feature_of_output);
  decode = fill(host, device, decode_at, arrays.decode, shape);
  decode_outputs = fill(host, device, decode_outputs_at, arrays.decode_outputs, shape);
  prefill = fill(host, device, prefill_at, arrays.prefill, prefill_shape);
  slots = reinterpret_cast<const std::int64_t*>(device + slots_at);
  ids = reinterpret_cast<const int*>(device + ids_at);
  positions = reinterpret_cast<const int*>(device + positions_at);
  output_rows = reinterpret_cast<const int*>(device + output_rows_at);
  feature_of_token = reinterpret_cast<const int*>(device + token_features_at);
  feature_of_output = reinterpret_cast<const int*>(device + output_features_at);
  has_visual = !input.visual.empty();
  QWENBENCH_CUDA(cudaMemcpyAsync(device_.get(), host, layout.size(), cudaMemcpyHostToDevice, stream));
  QWENBENCH_CUDA(cudaEventRecord(copied_, stream));
  return moved;
}

bool is_plain_decode(const StepInput& input) {
  if (!input.visual.empty() || input.observer || input.output_rows.size() != input.tokens.size() ||
      input.sequences.size() != input.tokens.size())
    return false;
  for (std::size_t i = 0; i < input.output_rows.size(); ++i)
    if (input.output_rows[i] != static_cast<int>(i)) return false;
  return true;
}

}  // namespace qwenbench::backend::cuda
