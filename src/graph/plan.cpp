#include "graph/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "graph/builder.h"

namespace qwenbench::graph {
namespace {

void require_divides(int ranks, int value, const char* what) {
  if (value % ranks != 0) {
    throw InputError(
        fmt::format("tensor_parallel_size {} does not divide the model's {} ({}); choose another", ranks, what, value));
  }
}

}  // namespace

RowRange local_rows(const LinearSpec& linear, const LinearPart& part, int rank, int ranks) {
  if (linear.shard != Shard::kColumns) return {part.row_begin, part.rows};
  const int count = part.rows / (ranks / part.copies);
  return {part.row_begin + rank / part.copies * count, count};
}

int local_n(const LinearSpec& linear, int ranks) {
  int n = 0;
  for (const auto& part : linear.parts) n += local_rows(linear, part, 0, ranks).count;
  return n;
}

int local_k(const LinearSpec& linear, int ranks) { return linear.shard == Shard::kRows ? linear.k / ranks : linear.k; }

Plan build_plan(const model::ModelConfig& config, int ranks) {
  const auto& text = config.text;
  require_divides(ranks, text.num_heads, "attention heads");
  require_divides(ranks, text.intermediate_size, "intermediate size");
  require_divides(ranks, text.vocab_size, "vocabulary");
  if (text.num_kv_heads % ranks != 0 && ranks % text.num_kv_heads != 0) {
    throw InputError(fmt::format("tensor_parallel_size {} and the model's {} KV heads do not divide each other", ranks,
                                 text.num_kv_heads));
  }
  Plan plan;
  plan.config = config;
  plan.ranks = ranks;
  plan.local_heads = text.num_heads / ranks;
  plan.local_kv_heads = std::max(1, text.num_kv_heads / ranks);
  const auto& vision = config.vision;
  const int merger_width = vision.hidden_size * vision.merge_unit();
  plan.vision_sharded =
      vision.num_heads % ranks == 0 && vision.intermediate_size % ranks == 0 && merger_width % ranks == 0;
  plan.local_vision_heads = plan.vision_sharded ? vision.num_heads / ranks : vision.num_heads;
  build_text(plan);
  build_vision(plan);
  return plan;
}

}  // namespace qwenbench::graph
