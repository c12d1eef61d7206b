#include "backend/cpu/text_ops.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/dtype.h"

namespace qwenbench::backend::cpu {

void prepare(TextStep& step, const StepInput& input, CpuKvCache& cache,
             std::span<const std::shared_ptr<const VisualFeatures>> pictures, RopeTable& rope,
             const model::TextConfig& config) {
  const std::size_t tokens = input.tokens.size();
  step.input = &input;
  step.cache = &cache;
  rope.fill(input.positions, config.mrope_section, step.cos, step.sin);
  step.slots.resize(tokens);
  step.sequence_of_token.resize(tokens);
  for (std::size_t s = 0; s < input.sequences.size(); ++s) {
    const StepInput::Sequence& sequence = input.sequences[s];
    for (int i = 0; i < sequence.num_rows; ++i) {
      const int position = sequence.kv_length - sequence.num_rows + i;
      step.sequence_of_token[sequence.first_row + i] = static_cast<int>(s);
      step.slots[sequence.first_row + i] =
          std::int64_t{sequence.blocks[position / cache.block_size()]} * cache.block_size() +
          position % cache.block_size();
    }
  }
  step.is_image.assign(tokens, 0);
  step.picture_of_row.assign(tokens, nullptr);
  step.feature_of_row.assign(tokens, 0);
  for (const auto& span : input.visual) {
    for (int i = 0; i < span.num_rows; ++i) {
      step.is_image[span.first_row + i] = 1;
      step.picture_of_row[span.first_row + i] = static_cast<const CpuVisualFeatures*>(pictures[span.picture].get());
      step.feature_of_row[span.first_row + i] = span.first_feature + i;
    }
  }
}

namespace {

void widen(DType dtype, const std::uint8_t* stored, float* out, std::int64_t count) {
  const auto* halves = reinterpret_cast<const std::uint16_t*>(stored);
  switch (dtype) {
    case DType::kBF16:
      std::transform(halves, halves + count, out, bf16_to_float);
      break;
    case DType::kF16:
      std::transform(halves, halves + count, out, fp16_to_float);
      break;
    default:
      std::copy_n(reinterpret_cast<const float*>(stored), count, out);
      break;
  }
}

}  // namespace

void run(RankContext& context, Activations& acts, const TextStep& step, const graph::Embed& op,
         const EmbeddingShard& embedding) {
  const std::int64_t width = acts.width(op.out);
  float* out = acts.data(op.out);
  context.for_items(acts.rows(op.out), width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const int id = step.input->tokens[row] - embedding.first_id;
      if (id < 0 || id >= embedding.count) {
        std::fill_n(out + row * width, width, 0.0f);
        continue;
      }
      const std::uint8_t* stored =
          embedding.rows.data() + id * width * static_cast<std::int64_t>(size_of(embedding.view.dtype));
      widen(embedding.view.dtype, stored, out + row * width, width);
    }
  });
}

void run(RankContext&, Activations& acts, const TextStep& step, const graph::PlaceVisual& op) {
  const std::int64_t width = acts.width(op.x);
  for (std::size_t row = 0; row < step.picture_of_row.size(); ++row) {
    if (const auto* picture = step.picture_of_row[row])
      std::copy_n(picture->row(0, step.feature_of_row[row]), width,
                  acts.data(op.x) + static_cast<std::int64_t>(row) * width);
  }
}

namespace {

void show(KvObserver& observer, RankContext& context, Activations& acts, const TextStep& step,
          const graph::QkNormRopeAppend& op) {
  using Kind = KvObserver::Kind;
  const int d = context.plan.config.text.head_dim, heads = context.plan.local_heads,
            kv_heads = context.plan.local_kv_heads, tokens = acts.rows(op.qkv);
  const std::int64_t width = acts.width(op.qkv);
  const int copies = std::max(1, context.plan.ranks / context.plan.config.text.num_kv_heads);
  const auto show_heads = [&](Kind kind, const float* first, int count, int global, std::int64_t stride) {
    if (!observer.wants(kind)) return;
    for (int h = 0; h < count; ++h)
      observer.observe(kind, op.layer, global + h, first + h * d, tokens, stride, step.is_image);
  };
  const float* k = acts.data(op.qkv) + heads * d;
  show_heads(Kind::kKey, k, kv_heads, context.rank / copies * kv_heads, width);
  show_heads(Kind::kValue, k + kv_heads * d, kv_heads, context.rank / copies * kv_heads, width);
  show_heads(Kind::kQuery, acts.data(op.q_out), heads, context.rank * heads, acts.width(op.q_out));
}

}  // namespace

void run(RankContext& context, Activations& acts, const TextStep& step, const graph::QkNormRopeAppend& op) {
  const int d = context.plan.config.text.head_dim, heads = context.plan.local_heads,
            kv_heads = context.plan.local_kv_heads;
  const std::int64_t width = acts.width(op.qkv);
  const float eps = context.plan.norms[op.q_norm].eps;
  const float* q_weight = context.norms[op.q_norm].weight.data();
  const float* k_weight = context.norms[op.k_norm].weight.data();
  float* qkv = acts.data(op.qkv);
  float* q_out = acts.data(op.q_out);
  const Kernels& kernels = context.kernels;
  context.for_items(acts.rows(op.qkv), 4 * width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* cos = step.cos.data() + row * (d / 2);
      const float* sin = step.sin.data() + row * (d / 2);
      float* q = qkv + row * width;
      for (int h = 0; h < heads; ++h) {
        float* out = q_out + (row * heads + h) * d;
        kernels.rms_norm(q + h * d, q_weight, out, d, eps);
        kernels.rope(out, cos, sin, d);
      }
      float* k = q + heads * d;
      const float* v = k + kv_heads * d;
      for (int h = 0; h < kv_heads; ++h) {
        kernels.rms_norm(k + h * d, k_weight, k + h * d, d, eps);
        kernels.rope(k + h * d, cos, sin, d);
        step.cache->append(kernels, op.layer, h, step.slots[row], k + h * d, v + h * d);
      }
    }
  });
  if (step.input->observer) show(*step.input->observer, context, acts, step, op);
}

namespace {

/// A block of query rows of one sequence and KV head. Rows are counted query head by query head of the group within
/// each row of the buffer.
struct QueryTask {
  int sequence;
  int kv_head;
  int first_row;   // of a run of rows that belong to the sequence
  int begin, end;  // of the run's rows * query heads of the group
};

std::vector<QueryTask> query_tasks(const TextStep& step, graph::Rows rows, int num_rows, int kv_heads, int group) {
  std::vector<QueryTask> tasks;
  for (int row = 0; row < num_rows;) {  // consecutive rows of one sequence
    const int first_row = row, sequence = step.sequence_of_token[step.token_of(rows, row)];
    while (row < num_rows && step.sequence_of_token[step.token_of(rows, row)] == sequence) ++row;
    const int queries = (row - first_row) * group;
    for (int begin = 0; begin < queries; begin += kQueryBlock) {
      for (int h = 0; h < kv_heads; ++h)
        tasks.push_back({sequence, h, first_row, begin, std::min(begin + kQueryBlock, queries)});
    }
  }
  // The longest first, so that no thread is left with a long one at the end.
  const auto work = [&](const QueryTask& t) {
    return std::int64_t{t.end - t.begin} * step.input->sequences[t.sequence].kv_length;
  };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const auto& a, const auto& b) { return work(a) > work(b); });
  return tasks;
}

/// Lets `rows` point to e4m3(bf16(q) / scale), kept as floats in `out` [count, width].
void round_queries(const Kernels& kernels, const float** rows, int count, int width, float scale, float* out) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(width));
  for (int row = 0; row < count; ++row) {
    kernels.encode(CacheForm::kE4M3, rows[row], scale, codes.data(), width);
    float* rounded = out + std::int64_t{row} * width;
    std::transform(codes.begin(), codes.end(), rounded, [](std::uint8_t code) { return e4m3_to_float(code); });
    rows[row] = rounded;
  }
}

}  // namespace

void run(RankContext& context, Activations& acts, const TextStep& step, const graph::PagedAttention& op) {
  const int d = context.plan.config.text.head_dim, heads = context.plan.local_heads;
  const int group = heads / context.plan.local_kv_heads;
  const graph::Rows rows = acts.kind(op.q);
  const std::vector<QueryTask> tasks = query_tasks(step, rows, acts.rows(op.q), context.plan.local_kv_heads, group);
  const float* q = acts.data(op.q);
  float* out = acts.data(op.out);
  const auto attend = [&](const QueryTask& task, float* scratch) {
    const StepInput::Sequence& sequence = step.input->sequences[task.sequence];
    const float* q_rows[kQueryBlock];
    float* out_rows[kQueryBlock];
    int last_key[kQueryBlock];
    for (int i = task.begin; i < task.end; ++i) {
      const int row = task.first_row + i / group, head = task.kv_head * group + i % group;
      const std::int64_t offset = (std::int64_t{row} * heads + head) * d;
      q_rows[i - task.begin] = q + offset;
      out_rows[i - task.begin] = out + offset;
      const int token = step.token_of(rows, row) - sequence.first_row;
      last_key[i - task.begin] = sequence.kv_length - sequence.num_rows + token;
    }
    AttentionArgs args;
    step.cache->describe(op.layer, task.kv_head, args);
    args.blocks = sequence.blocks.data();
    args.kv_length = sequence.kv_length;
    args.rows = task.end - task.begin;
    args.q_rows = q_rows;
    args.out_rows = out_rows;
    args.last_key = last_key;
    args.scratch = scratch;
    if (step.cache->fp8_attention()) {
      const float q_scale = step.cache->q_scale(op.layer, task.kv_head);
      round_queries(context.kernels, q_rows, args.rows, d, q_scale, scratch + attention_scratch_floats(d));
    }
    context.kernels.attention(args);
  };
  std::atomic<std::size_t> next{0};
  const auto work = [&](int thread) {
    float* scratch = context.scratch_of(thread, attention_scratch_floats(d) + std::int64_t{kQueryBlock} * d);
    for (std::size_t i = next++; i < tasks.size(); i = next++) attend(tasks[i], scratch);
  };
  if (tasks.size() < 2)
    work(0);
  else
    context.pool.run(work);
}

void run(RankContext&, Activations& acts, const TextStep& step, const graph::SelectOutputs& op) {
  const std::int64_t width = acts.width(op.in);
  for (std::size_t i = 0; i < step.input->output_rows.size(); ++i)
    std::copy_n(acts.data(op.in) + step.input->output_rows[i] * width, width,
                acts.data(op.out) + static_cast<std::int64_t>(i) * width);
}

}  // namespace qwenbench::backend::cpu
