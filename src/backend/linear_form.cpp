#include "backend/linear_form.h"

#include <algorithm>

namespace qwenbench::backend {
namespace {

constexpr int kFp8Block = 128;

bool is_kept_int4(const StoredForm& part, const StoredForm& first, int rows, int k_begin, int k) {
  const int group = part.group_size;
  const bool known_size = group == 32 || group == 64 || (group > 0 && group % 128 == 0);
  return !part.has_group_index && known_size && group == first.group_size && k_begin % group == 0 && k % group == 0 &&
         rows % 64 == 0 && k % 64 == 0;
}

bool is_kept_fp8(graph::RowRange rows, bool alone, int k_begin, int k) {
  return k_begin % kFp8Block == 0 && k % 16 == 0 && rows.begin % kFp8Block == 0 &&
         (alone || rows.count % kFp8Block == 0);
}

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

}  // namespace

WeightForm gpu_form(const graph::LinearSpec& linear, std::span<const StoredForm> stored, int rank, int ranks) {
  const int k = graph::local_k(linear, ranks), k_begin = linear.shard == graph::Shard::kRows ? rank * k : 0;
  const StoredForm& first = stored[0];
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const graph::RowRange rows = graph::local_rows(linear, linear.parts[i], rank, ranks);
    if (stored[i].form != first.form) return WeightForm::kDense;
    if (first.form == WeightForm::kInt4 && !is_kept_int4(stored[i], first, rows.count, k_begin, k))
      return WeightForm::kDense;
    if (first.form == WeightForm::kFp8Block && !is_kept_fp8(rows, stored.size() == 1, k_begin, k))
      return WeightForm::kDense;
  }
  return first.form;
}

std::int64_t gpu_weight_bytes(WeightForm form, std::int64_t n, std::int64_t k, int group_size) {
  switch (form) {
    case WeightForm::kInt4: {  // blocks of 64 rows x 128 columns, and scales and zeros of 64 rows for each group in
                               // them
      const std::int64_t blocks = divide_up(n, 64) * divide_up(k, 128), groups = group_size < 128 ? 4 : 1;
      return blocks * (64 * 128 / 2 + groups * 160);
    }
    case WeightForm::kFp8Block:
      return n * k + divide_up(n, kFp8Block) * divide_up(k, kFp8Block) * std::int64_t{sizeof(float)};
    default:
      return n * k * 2;
  }
}

}  // namespace qwenbench::backend
