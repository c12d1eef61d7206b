// The interpreter: walks a program of the plan operation by operation.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "backend/backend.h"
#include "backend/cpu/text_ops.h"
#include "backend/cpu/vision_ops.h"
#include "base/error.h"

namespace qwenbench::backend {
namespace cpu {
namespace {

class CpuExecutor : public Executor {
 public:
  CpuExecutor(const graph::Plan& plan, const model::WeightSource& source,
              std::shared_ptr<comm::Communicator> communicator, const ExecutorOptions& options)
      : context_(plan, options.rank, options.threads, std::move(communicator)),
        text_(context_.plan.text),
        head_(context_.plan.head),
        vision_(context_.plan.vision),
        rope_(plan.config.text.rope_theta, plan.config.text.head_dim) {
    load_linears(source, options);
    load_norms(source);
    load_embedding(source);
    load_position_table(source);
  }

  std::unique_ptr<KvCache> make_cache(const KvCacheOptions& options) override {
    return std::make_unique<CpuKvCache>(context_.plan, context_.rank, options);
  }

  std::shared_ptr<const VisualFeatures> encode(const workload::Image& image) override;
  void execute(const StepInput& input, KvCache& cache,
               std::span<const std::shared_ptr<const VisualFeatures>> pictures) override;
  void read_hidden(std::span<float> out) override;
  void logits(std::span<const float> hidden, int rows, std::span<float> out) override;
  bool has_fp8_attention() const override { return true; }
  std::size_t weight_bytes() const override { return weight_bytes_; }

 private:
  void load_linears(const model::WeightSource& source, const ExecutorOptions& options);
  void load_norms(const model::WeightSource& source);
  void load_embedding(const model::WeightSource& source);
  void load_position_table(const model::WeightSource& source);

  RankContext context_;
  Activations text_, head_, vision_;
  RopeTable rope_;
  EmbeddingShard embedding_;
  PositionTable position_table_;
  TextStep step_;
  std::size_t weight_bytes_ = 0;
};

void CpuExecutor::load_linears(const model::WeightSource& source, const ExecutorOptions& options) {
  for (const auto& spec : context_.plan.linears) {
    context_.linears.push_back(pack_linear(spec, source, context_.rank, context_.plan.ranks, context_.pool));
    const std::size_t bytes = context_.linears.back().bytes();
    weight_bytes_ += bytes;
    if (options.on_loaded) options.on_loaded(bytes);
  }
}

void CpuExecutor::load_norms(const model::WeightSource& source) {
  for (const auto& spec : context_.plan.norms) {
    const std::int64_t shape[] = {spec.width};
    NormWeights norm;
    norm.weight = source.tensor(spec.weight, shape).to_floats();
    if (!spec.bias.empty()) norm.bias = source.tensor(spec.bias, shape).to_floats();
    weight_bytes_ += 4 * (norm.weight.size() + norm.bias.size());
    context_.norms.push_back(std::move(norm));
  }
}

void CpuExecutor::load_embedding(const model::WeightSource& source) {
  const auto& text = context_.plan.config.text;
  const std::int64_t shape[] = {text.vocab_size, text.hidden_size};
  embedding_.view = source.tensor(context_.plan.embedding, shape);
  const DType dtype = embedding_.view.dtype;
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32)
    throw InputError(
        fmt::format("{} has dtype {}; expected BF16, F16 or F32", context_.plan.embedding, safetensors_name(dtype)));
  embedding_.count = text.vocab_size / context_.plan.ranks;
  embedding_.first_id = context_.rank * embedding_.count;
  embedding_.width = text.hidden_size;
  const std::size_t row_bytes = size_of(dtype) * static_cast<std::size_t>(text.hidden_size);
  const auto* first = reinterpret_cast<const std::uint8_t*>(embedding_.view.data) +
                      row_bytes * static_cast<std::size_t>(embedding_.first_id);
  embedding_.rows.assign(first, first + row_bytes * static_cast<std::size_t>(embedding_.count));
  embedding_.view.data = nullptr;  // the file may be closed
  weight_bytes_ += embedding_.rows.size();
}

void CpuExecutor::load_position_table(const model::WeightSource& source) {
  const auto& vision = context_.plan.config.vision;
  const std::int64_t shape[] = {vision.num_position_embeddings, vision.hidden_size};
  position_table_.values = source.tensor(context_.plan.position_embedding, shape).to_floats();
  position_table_.side = static_cast<int>(std::lround(std::sqrt(static_cast<double>(vision.num_position_embeddings))));
  weight_bytes_ += 4 * position_table_.values.size();
}

[[noreturn]] void misplaced() { throw std::logic_error("an operation stands in a program where it has no meaning"); }

std::shared_ptr<const VisualFeatures> CpuExecutor::encode(const workload::Image& image) {
  const graph::Program& program = context_.plan.vision;
  const auto& config = context_.plan.config.vision;
  const int patches = image.grid_h * image.grid_w;
  vision_.set_rows(graph::Rows::kPatches, patches);
  vision_.set_rows(graph::Rows::kMerged, patches / config.merge_unit());
  std::copy(image.pixel_values.begin(), image.pixel_values.end(), vision_.data(program.input));
  ImagePass pass{image.grid_h, image.grid_w, {}, {}};
  vision_rope(image.grid_h, image.grid_w, config.spatial_merge_size, config.head_dim(), pass.cos, pass.sin);
  for (const graph::Op& op : program.ops) {
    std::visit(
        [&](const auto& o) {
          using T = std::decay_t<decltype(o)>;
          if constexpr (std::is_same_v<T, graph::AddPositionEmbedding>)
            run(context_, vision_, pass, o, position_table_);
          else if constexpr (std::is_same_v<T, graph::VisionRope>)
            run(context_, vision_, pass, o);
          else if constexpr (std::is_same_v<T, graph::AllReduceAddNorm>)
            run(context_, vision_, o, {});
          else if constexpr (requires { run(context_, vision_, o); })
            run(context_, vision_, o);
          else
            misplaced();
        },
        op);
  }
  auto features = std::make_shared<CpuVisualFeatures>();
  features->tokens = patches / config.merge_unit();
  features->width = config.out_hidden_size;
  for (const graph::BufferId output : program.outputs) {
    const float* data = vision_.data(output);
    features->levels.emplace_back(data, data + static_cast<std::size_t>(features->tokens) * features->width);
  }
  return features;
}

void CpuExecutor::execute(const StepInput& input, KvCache& cache,
                          std::span<const std::shared_ptr<const VisualFeatures>> pictures) {
  prepare(step_, input, static_cast<CpuKvCache&>(cache), pictures, rope_, context_.plan.config.text);
  text_.set_rows(graph::Rows::kTokens, static_cast<int>(input.tokens.size()));
  text_.set_rows(graph::Rows::kOutputs, static_cast<int>(input.output_rows.size()));
  const FeatureOfRow feature = [&](int level, graph::Rows rows, int row) -> const float* {
    const int token = step_.token_of(rows, row);
    const CpuVisualFeatures* picture = step_.picture_of_row[token];
    return picture ? picture->row(level + 1, step_.feature_of_row[token]) : nullptr;
  };
  for (const graph::Op& op : context_.plan.text.ops) {
    std::visit(
        [&](const auto& o) {
          using T = std::decay_t<decltype(o)>;
          if constexpr (std::is_same_v<T, graph::Embed>)
            run(context_, text_, step_, o, embedding_);
          else if constexpr (std::is_same_v<T, graph::AllReduceAddNorm>)
            run(context_, text_, o, feature);
          else if constexpr (requires { run(context_, text_, step_, o); })
            run(context_, text_, step_, o);
          else if constexpr (requires { run(context_, text_, o); })
            run(context_, text_, o);
          else
            misplaced();
        },
        op);
  }
}

void CpuExecutor::read_hidden(std::span<float> out) {
  const float* hidden = text_.data(context_.plan.text.outputs[0]);
  std::copy_n(hidden, out.size(), out.data());
}

void CpuExecutor::logits(std::span<const float> hidden, int rows, std::span<float> out) {
  const graph::Program& program = context_.plan.head;
  head_.set_rows(graph::Rows::kOutputs, rows);
  std::copy(hidden.begin(), hidden.end(), head_.data(program.input));
  for (const graph::Op& op : program.ops) {
    std::visit(
        [&](const auto& o) {
          if constexpr (requires { run(context_, head_, o); })
            run(context_, head_, o);
          else
            misplaced();
        },
        op);
  }
  const float* result = head_.data(program.outputs[0]);
  std::copy_n(result, out.size(), out.data());
}

}  // namespace
}  // namespace cpu

std::unique_ptr<Executor> make_cpu_executor(const graph::Plan& plan, const model::WeightSource& source,
                                            std::shared_ptr<comm::Communicator> communicator,
                                            const ExecutorOptions& options) {
  return std::make_unique<cpu::CpuExecutor>(plan, source, std::move(communicator), options);
}

}  // namespace qwenbench::backend
