// Compiles a plan for one GPU: walks its programs operation by operation, and captures decode steps as CUDA graphs.
#include <cmath>
#include <stdexcept>

#include "backend/backend.h"
#include "backend/cuda/decode_chains.h"
#include "backend/cuda/head.h"
#include "backend/cuda/profiler_range.h"
#include "backend/cuda/text_step.h"
#include "backend/cuda/vision_pass.h"
#include "comm/cuda/choose.h"
#include "kernels/activation.h"
#include "kernels/decode_attention.h"
#include "kernels/prefill_attention.h"
#include "kernels/read_bandwidth.h"
#include "kernels/rope_table.h"

namespace qwenbench::backend {
namespace cuda {
namespace {

[[noreturn]] void misplaced() { throw std::logic_error("an operation stands in a program where it has no meaning"); }

/// Graphs exist for these numbers of sequences; a step is padded to the next.
int graph_batch(int sequences) {
  for (const int size : {1, 2, 4, 8, 16, 24, 32, 48, 64})
    if (sequences <= size) return size;
  return 0;
}

class CudaExecutor : public Executor {
 public:
  CudaExecutor(const graph::Plan& plan, const model::WeightSource& source,
               std::shared_ptr<comm::Communicator> communicator, const ExecutorOptions& options);
  ~CudaExecutor() override { cudaSetDevice(context_.device); }

  std::unique_ptr<KvCache> make_cache(const KvCacheOptions& options) override;
  std::shared_ptr<const VisualFeatures> encode(const workload::Image& image) override;
  void execute(const StepInput& input, KvCache& cache,
               std::span<const std::shared_ptr<const VisualFeatures>> pictures) override;
  void read_hidden(std::span<float> out) override;
  void logits(std::span<const float> hidden, int rows, std::span<float> out) override;
  bool reduces_logits() const override { return true; }
  bool has_fp8_attention() const override { return true; }
  void greedy(std::span<std::int32_t> tokens) override;
  void compare(std::span<const float> reference_hidden, std::span<const float> variant_hidden,
               std::span<const std::int32_t> targets, std::span<TokenScore> out) override;
  void synchronize() override;
  std::string communicator() const override { return context_.comm ? context_.comm->name() : ""; }
  std::optional<double> collective_seconds() override;
  std::size_t weight_bytes() const override { return weight_bytes_; }
  std::size_t decode_weight_bytes() const override;
  std::optional<double> read_bandwidth() const override { return read_bandwidth_; }

 private:
  void load(const model::WeightSource& source, const ExecutorOptions& options);
  void load_embedding(const model::WeightSource& source, LinearLoader& loader);
  void use_device() const { QWENBENCH_CUDA(cudaSetDevice(context_.device)); }
  bool uses_graphs() const { return engine_.cuda_graphs && (!context_.comm || context_.comm->can_be_captured()); }
  void load_products(const graph::Program& program, const Buffers& buffers);
  void prepare(const StepInput& input, const StepShape& shape);
  void run_text();
  void run_decode_graph(int batch);
  const __nv_bfloat16* hidden() const { return text_.data(context_.plan.text.outputs[0]); }

  RankContext context_;
  Buffers text_, vision_;
  EmbeddingShard embedding_;
  VisionPass vision_pass_;
  TextStep step_;
  std::unique_ptr<Head> head_;
  std::unique_ptr<DecodeChains> chains_;
  DeviceArray<float> float_hidden_;
  profile::EngineOptions engine_;
  std::uint64_t generation_ = 0;  // of the buffers that graphs were captured over
  bool top_queued_ = false;       // the step's graph has computed the largest logits already
  std::size_t weight_bytes_ = 0;
  double read_bandwidth_ = 0;  // bytes a second
};

constexpr std::size_t kReadBytes = std::size_t{1} << 30;

/// Makes the device current before anything is allocated on it.
int on_device(int device) {
  QWENBENCH_CUDA(cudaSetDevice(device));
  return device;
}

/// The device of every rank.
std::vector<int> gather_devices(comm::Communicator& host, int device) {
  const float mine = static_cast<float>(device);
  std::vector<float> all(static_cast<std::size_t>(host.size()));
  host.all_gather({&mine, 1}, all);
  return {all.begin(), all.end()};
}

std::unique_ptr<comm::DeviceCommunicator> join_ranks(const std::shared_ptr<comm::Communicator>& host, int device,
                                                     const std::string& all_reduce) {
  if (host->size() == 1) return nullptr;
  const auto choice = comm::choose_all_reduce(all_reduce, gather_devices(*host, device));
  return comm::make_device_communicator(choice.kind, host);
}

CudaExecutor::CudaExecutor(const graph::Plan& plan, const model::WeightSource& source,
                           std::shared_ptr<comm::Communicator> communicator, const ExecutorOptions& options)
    : context_(plan, options.rank, on_device(options.device), std::move(communicator)),
      text_(context_.plan.text),
      vision_(context_.plan.vision),
      engine_(options.engine) {
  QWENBENCH_CUDA(kernels::measure_read_bandwidth(kReadBytes, read_bandwidth_));
  context_.comm = join_ranks(context_.host_comm, options.device, engine_.all_reduce);
  load(source, options);
  head_ = std::make_unique<Head>(context_);
  chains_ = std::make_unique<DecodeChains>(context_);
  const auto& text = plan.config.text;
  step_.max_model_len = engine_.max_model_len > 0 ? engine_.max_model_len : text.max_position_embeddings;
  text_.set_rows(graph::Rows::kTokens, engine_.max_num_batched_tokens);
  text_.set_rows(graph::Rows::kOutputs, engine_.max_num_seqs);
  head_->reserve(engine_.max_num_seqs);
}

void CudaExecutor::load(const model::WeightSource& source, const ExecutorOptions& options) {
  ThreadPool pool(options.threads);
  LinearLoader loader(source, context_.rank, context_.plan.ranks, engine_.pin_memory != profile::Switch::kOff, pool);
  const std::vector<bool> paired = paired_linears(context_.plan);
  for (std::size_t i = 0; i < paired.size(); ++i) {
    context_.linears.push_back(loader.load(context_.plan.linears[i], paired[i]));
    const std::size_t bytes = context_.linears.back().bytes();
    weight_bytes_ += bytes;
    if (options.on_loaded) options.on_loaded(bytes);
  }
  for (const auto& spec : context_.plan.norms) {
    const std::int64_t shape[] = {spec.width};
    DeviceNorm norm;
    norm.weight = loader.load_rows(source.tensor(spec.weight, shape), 0, spec.width);
    if (!spec.bias.empty()) norm.bias = loader.load_rows(source.tensor(spec.bias, shape), 0, spec.width);
    weight_bytes_ += norm.weight.bytes() + norm.bias.bytes();
    context_.norms.push_back(std::move(norm));
  }
  load_embedding(source, loader);
  const auto& vision = context_.plan.config.vision;
  const std::int64_t shape[] = {vision.num_position_embeddings, vision.hidden_size};
  vision_pass_.position_table =
      loader.load_rows(source.tensor(context_.plan.position_embedding, shape), 0, vision.num_position_embeddings);
  vision_pass_.side = static_cast<int>(std::lround(std::sqrt(static_cast<double>(vision.num_position_embeddings))));
  weight_bytes_ += vision_pass_.position_table.bytes();
  loader.finish();
  context_.runner.reserve(context_.linears);
}

void CudaExecutor::load_embedding(const model::WeightSource& source, LinearLoader& loader) {
  const auto& text = context_.plan.config.text;
  const std::int64_t shape[] = {text.vocab_size, text.hidden_size};
  embedding_.width = text.hidden_size;
  embedding_.count = text.vocab_size / context_.plan.ranks;
  embedding_.first_id = context_.rank * embedding_.count;
  embedding_.rows =
      loader.load_rows(source.tensor(context_.plan.embedding, shape), embedding_.first_id, embedding_.count);
  weight_bytes_ += embedding_.rows.bytes();
}

std::size_t CudaExecutor::decode_weight_bytes() const {
  std::size_t bytes = 0;
  for (const graph::Program* program : {&context_.plan.text, &context_.plan.head})
    for (const graph::Op& op : program->ops)
      if (const auto* linear = std::get_if<graph::Linear>(&op)) bytes += context_.linears[linear->weight].bytes();
  return bytes;
}

std::unique_ptr<KvCache> CudaExecutor::make_cache(const KvCacheOptions& options) {
  use_device();
  return std::make_unique<CudaKvCache>(context_.plan, context_.rank, context_.device, options);
}

std::shared_ptr<const VisualFeatures> CudaExecutor::encode(const workload::Image& image) {
  use_device();
  const ProfilerRange range("picture", nvtx3::payload{image.grid_h * image.grid_w});
  const graph::Program& program = context_.plan.vision;
  const auto& config = context_.plan.config.vision;
  const int patches = image.grid_h * image.grid_w;
  vision_.set_rows(graph::Rows::kPatches, patches);
  vision_.set_rows(graph::Rows::kMerged, patches / config.merge_unit());
  load_products(program, vision_);
  cuda::prepare(vision_pass_, context_, image, vision_.data(program.input));
  auto features = std::make_shared<CudaVisualFeatures>();
  features->device = context_.device;
  features->tokens = patches / config.merge_unit();
  features->width = config.out_hidden_size;
  const auto count = static_cast<std::size_t>(features->tokens) * features->width;
  for (std::size_t level = 0; level < program.outputs.size(); ++level) features->levels.emplace_back(count);
  context_.meet();
  for (const graph::Op& op : program.ops) {
    std::visit(
        [&](const auto& o) {
          using T = std::decay_t<decltype(o)>;
          if constexpr (std::is_same_v<T, graph::AllReduceAddNorm>)
            run(context_, vision_, o, {});
          else if constexpr (requires { run(context_, vision_, vision_pass_, o); })
            run(context_, vision_, vision_pass_, o);
          else if constexpr (requires { run(context_, vision_, o); })
            run(context_, vision_, o);
          else
            misplaced();
        },
        op);
  }
  for (std::size_t level = 0; level < program.outputs.size(); ++level)
    QWENBENCH_CUDA(cudaMemcpyAsync(features->levels[level].get(), vision_.data(program.outputs[level]),
                                   count * sizeof(__nv_bfloat16), cudaMemcpyDeviceToDevice, context_.stream));
  synchronize();
  return features;
}

/// A library's kernels are loaded now rather than behind a collective, whose kernel the driver may wait for.
void CudaExecutor::load_products(const graph::Program& program, const Buffers& buffers) {
  if (!context_.kernels_wait()) return;
  for (const graph::Op& op : program.ops) {
    const auto* linear = std::get_if<graph::Linear>(&op);
    if (!linear || buffers.rows(linear->out) == 0) continue;
    context_.runner.load(context_.linears[linear->weight], buffers.data(linear->in), buffers.data(linear->out), false,
                         buffers.rows(linear->out), context_.stream, epilogue_of(context_, *linear));
  }
}

/// Everything that may take memory or depends on the host's data, before the operations are queued.
void CudaExecutor::prepare(const StepInput& input, const StepShape& shape) {
  const auto& text = context_.plan.config.text;
  step_.input = &input;
  bool moved = text_.set_rows(graph::Rows::kTokens, shape.tokens);
  moved |= text_.set_rows(graph::Rows::kOutputs, shape.outputs);
  load_products(context_.plan.text, text_);
  const auto angles = static_cast<std::size_t>(shape.tokens) * text.head_dim / 2;
  moved |= step_.cos.reserve(angles);
  moved |= step_.sin.reserve(angles);
  const int sequences = std::max({shape.decode_places, static_cast<int>(input.sequences.size()), engine_.max_num_seqs});
  const std::size_t workspace =
      kernels::decode_attention_workspace_bytes(sequences, context_.plan.local_heads, context_.plan.local_kv_heads);
  moved |= step_.attention_workspace.reserve(workspace);
  moved |= step_.arrays.upload(input, shape, step_.cache->block_size(), context_.stream);
  if (step_.arrays.prefill.count > 0 && step_.cache->is_fp8())
    step_.prefill_workspace.reserve(
        kernels::prefill_attention_workspace_bytes(step_.arrays.prefill.total_kv, step_.arrays.prefill.count,
                                                   step_.cache->block_size(), context_.plan.local_kv_heads));
  if (shape.decode_places > 0) moved |= head_->reserve(shape.outputs);
  if (context_.kernels_wait()) head_->load_product(hidden(), shape.outputs);
  reserve_features(step_, static_cast<int>(context_.plan.vision.outputs.size()), text.hidden_size);
  if (input.observer) {
    const auto observed = static_cast<std::size_t>(shape.tokens) * context_.plan.local_kv_heads * text.head_dim;
    step_.observed_k.reserve(observed);
    step_.observed_v.reserve(observed);
  }
  if (moved) ++generation_;
}

void CudaExecutor::run_text() {
  const auto& text = context_.plan.config.text;
  const int section[3] = {text.mrope_section[0], text.mrope_section[1], text.mrope_section[2]};
  const int tokens = text_.rows(std::get<graph::Embed>(context_.plan.text.ops.front()).out);
  QWENBENCH_CUDA(kernels::rope_table(step_.arrays.positions, tokens, section, text.rope_theta, step_.cos.get(),
                                     step_.sin.get(), context_.stream));
  plan_decode(context_, step_, step_.arrays.decode);
  const std::vector<graph::Op>& ops = context_.plan.text.ops;
  LayerRanges ranges(context_.plan.text);
  std::size_t behind_chain = 0;  // the operation that follows the last chain
  for (std::size_t i = 0; i < ops.size(); ++i) {
    ranges.before(i);
    const std::size_t behind_attention = i + (std::holds_alternative<graph::QkNormRopeAppend>(ops[i]) ? 2 : 1);
    const bool chain_follows = step_.decodes() && chains_->runs(behind_attention, text_);
    step_.attended_factor = chain_follows ? kernels::kChainInputFactor : 1.0F;
    if (const std::size_t done = step_.decodes() ? chains_->run(i, context_, text_) : 0; done > 0) {
      i += done - 1;
      behind_chain = i + 1;
      continue;
    }
    if (const auto* append = std::get_if<graph::QkNormRopeAppend>(&ops[i]); append && i + 1 < ops.size()) {
      const auto* attention = std::get_if<graph::PagedAttention>(&ops[i + 1]);
      if (auto both = attention ? as_one(context_, text_, step_, *append, *attention) : std::nullopt) {
        both->raw_is_announced = i > 0 && i == behind_chain && chain_follows;
        QWENBENCH_CUDA(kernels::decode_attention(*both, context_.stream));
        ++i;
        continue;
      }
    }
    std::visit(
        [&](const auto& o) {
          using T = std::decay_t<decltype(o)>;
          if constexpr (std::is_same_v<T, graph::Embed>)
            run(context_, text_, step_, o, embedding_);
          else if constexpr (std::is_same_v<T, graph::AllReduceAddNorm>)
            run(context_, text_, o, step_.row_features(o.deepstack_level, text_.kind(o.residual)));
          else if constexpr (requires { run(context_, text_, step_, o); })
            run(context_, text_, step_, o);
          else if constexpr (requires { run(context_, text_, o); })
            run(context_, text_, o);
          else
            misplaced();
        },
        ops[i]);
  }
}

/// The first step of a batch size runs as it is, so that libraries have set themselves up; the second is captured.
void CudaExecutor::run_decode_graph(int batch) {
  std::unique_ptr<Graph>& graph = step_.cache->graphs[batch];
  const bool met = step_.cache->graphs_met.contains(batch);
  if (graph && graph->generation() != generation_) graph.reset();
  step_.captured = true;
  if (graph) {
    graph->launch(context_.stream);
  } else if (!met) {
    step_.cache->graphs_met.insert(batch);
    run_text();
    head_->queue_top(hidden(), batch);
  } else {
    QWENBENCH_CUDA(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t captured = nullptr;
    try {
      run_text();
      head_->queue_top(hidden(), batch);
    } catch (...) {
      cudaStreamEndCapture(context_.stream, &captured);
      if (captured) cudaGraphDestroy(captured);
      throw;
    }
    QWENBENCH_CUDA(cudaStreamEndCapture(context_.stream, &captured));
    graph = std::make_unique<Graph>(captured, generation_);
    graph->upload(context_.stream);
    context_.meet();
    graph->launch(context_.stream);
  }
  step_.captured = false;
  top_queued_ = true;
}

void CudaExecutor::execute(const StepInput& input, KvCache& cache,
                           std::span<const std::shared_ptr<const VisualFeatures>> pictures) {
  use_device();
  step_.cache = &static_cast<CudaKvCache&>(cache);
  top_queued_ = false;
  const int tokens = static_cast<int>(input.tokens.size()), block_size = step_.cache->block_size();
  const int max_blocks = (step_.max_model_len + block_size - 1) / block_size;
  const bool decode = is_plain_decode(input);
  const ProfilerRange range(decode ? "decode step" : "prompt step", nvtx3::payload{tokens});
  const int batch = decode && uses_graphs() ? graph_batch(tokens) : 0;
  if (batch > 0) {
    prepare(input, {batch, batch, max_blocks, batch});
    context_.meet();
    run_decode_graph(batch);
    return;
  }
  prepare(input, {tokens, static_cast<int>(input.output_rows.size()), max_blocks, 0});
  gather_features(step_, pictures, context_.plan.config.text.hidden_size, context_.stream);
  context_.meet();
  run_text();
}

void CudaExecutor::read_hidden(std::span<float> out) {
  synchronize();  // a peer's kernels wait for nothing more of this rank: memory may be taken
  float_hidden_.reserve(out.size());
  QWENBENCH_CUDA(kernels::to_float(hidden(), static_cast<long long>(out.size()), float_hidden_.get(), context_.stream));
  QWENBENCH_CUDA(
      cudaMemcpyAsync(out.data(), float_hidden_.get(), out.size_bytes(), cudaMemcpyDeviceToHost, context_.stream));
  synchronize();
}

void CudaExecutor::logits(std::span<const float> hidden, int rows, std::span<float> out) {
  use_device();
  head_->logits(hidden, rows, out);
}

void CudaExecutor::greedy(std::span<std::int32_t> tokens) {
  use_device();
  if (!top_queued_) head_->queue_top(hidden(), static_cast<int>(tokens.size()));
  head_->top(tokens);
}

void CudaExecutor::compare(std::span<const float> reference_hidden, std::span<const float> variant_hidden,
                           std::span<const std::int32_t> targets, std::span<TokenScore> out) {
  use_device();
  const ProfilerRange range("compare logits", nvtx3::payload{targets.size()});
  head_->compare(reference_hidden, variant_hidden, targets, out);
}

std::optional<double> CudaExecutor::collective_seconds() {
  if (!context_.comm) return std::nullopt;
  synchronize();
  return context_.comm->seconds();
}

void CudaExecutor::synchronize() {
  use_device();
  context_.synchronize();
}

}  // namespace
}  // namespace cuda

std::unique_ptr<Executor> make_cuda_executor(const graph::Plan& plan, const model::WeightSource& source,
                                             std::shared_ptr<comm::Communicator> communicator,
                                             const ExecutorOptions& options) {
  return std::make_unique<cuda::CudaExecutor>(plan, source, std::move(communicator), options);
}

}  // namespace qwenbench::backend
