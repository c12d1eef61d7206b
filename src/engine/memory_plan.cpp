#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "backend/backend.h"
#include "backend/linear_form.h"
#include "base/error.h"
#include "graph/plan.h"
#include "model/weights.h"

namespace qwenbench::engine {
namespace {

constexpr std::int64_t kGiB = 1 << 30;
/// CUDA context, NCCL buffers, cuBLAS workspace, captured graphs: together about this on one GPU.
constexpr std::int64_t kGpuRuntime = kGiB;

/// The part of a module's weights, and of its bias, that one rank holds.
struct Share {
  std::int64_t rows = 0, module_rows = 1;  // columns-split: rows of the stored [n, k] matrix
  int row_split = 1;                       // rows-split: ranks that share the inputs
};

/// By module, "model.language_model.layers.0.mlp.up_proj".
std::map<std::string, Share> module_shares(const graph::Plan& plan) {
  std::map<std::string, Share> shares;
  for (const auto& linear : plan.linears) {
    for (const auto& part : linear.parts) {
      Share& share = shares[part.module];
      share.rows += graph::local_rows(linear, part, 0, plan.ranks).count;
      share.module_rows = part.module_n;
      share.row_split = linear.shard == graph::Shard::kRows ? plan.ranks : 1;
    }
  }
  return shares;
}

std::int64_t bytes_of(const model::TensorSpec& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), static_cast<std::int64_t>(size_of(tensor.dtype)),
                         std::multiplies<>());
}

/// A model's tensors by name, and what they say of how its modules are stored.
class StoredModel {
 public:
  explicit StoredModel(const model::ModelConfig& config) : quantization_(config.quantization) {
    for (auto& tensor : model::expected_tensors(config)) tensors_.emplace(tensor.name, std::move(tensor));
  }

  const std::map<std::string, model::TensorSpec>& tensors() const { return tensors_; }

  backend::StoredForm form(const std::string& module) const {
    const auto weight = tensors_.find(module + ".weight");
    if (weight == tensors_.end())
      return {backend::WeightForm::kInt4, quantization_.group_size, tensors_.contains(module + ".weight_g_idx")};
    const bool is_fp8 = weight->second.dtype == DType::kF8E4M3;
    return {is_fp8 ? backend::WeightForm::kFp8Block : backend::WeightForm::kDense};
  }

  /// The form of a Linear on a GPU rank; the largest, should ranks differ.
  backend::WeightForm gpu_form(const graph::LinearSpec& linear, int ranks) const {
    std::vector<backend::StoredForm> parts;
    for (const auto& part : linear.parts) parts.push_back(form(part.module));
    for (int rank = 0; rank < ranks; ++rank)
      if (backend::gpu_form(linear, parts, rank, ranks) == backend::WeightForm::kDense)
        return backend::WeightForm::kDense;
    return parts[0].form;
  }

 private:
  const model::QuantizationConfig& quantization_;
  std::map<std::string, model::TensorSpec> tensors_;
};

/// Bytes of one row of each kind, all buffers of a program together.
struct RowBytes {
  std::int64_t tokens = 0, outputs = 0, patches = 0, merged = 0;
};

RowBytes row_bytes_of(const graph::Program& program, std::int64_t element) {
  RowBytes sum;
  for (const auto& buffer : program.buffers) {
    const std::int64_t bytes =
        buffer.width * (buffer.precision == graph::Precision::kWide ? std::int64_t{sizeof(float)} : element);
    switch (buffer.rows) {
      case graph::Rows::kTokens:
        sum.tokens += bytes;
        break;
      case graph::Rows::kOutputs:
        sum.outputs += bytes;
        break;
      case graph::Rows::kPatches:
        sum.patches += bytes;
        break;
      case graph::Rows::kMerged:
        sum.merged += bytes;
        break;
    }
  }
  return sum;
}

int max_model_len_of(const model::ModelConfig& config, const profile::EngineOptions& options) {
  return options.max_model_len > 0 ? options.max_model_len : config.text.max_position_embeddings;
}

/// Image tokens of the largest picture: what the processor lets through, or the longest prompt holds. 0: no pictures.
std::int64_t largest_picture_tokens(const model::ModelConfig& config, const profile::EngineOptions& options) {
  const auto limit = options.limit_mm_per_prompt.find("image");
  if (limit != options.limit_mm_per_prompt.end() && limit->second == 0) return 0;
  const auto& processor = config.image_processor;
  const std::int64_t side = static_cast<std::int64_t>(processor.patch_size) * processor.merge_size;
  return std::min<std::int64_t>(processor.max_pixels / (side * side), max_model_len_of(config, options));
}

std::string in_gib(std::int64_t bytes) { return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / kGiB); }

}  // namespace

std::int64_t weight_bytes_per_rank(const model::ModelConfig& config, int ranks) {
  const graph::Plan plan = graph::build_plan(config, ranks);
  const auto shares = module_shares(plan);
  std::int64_t total = 0;
  for (const auto& tensor : model::expected_tensors(config)) {
    const std::int64_t bytes = bytes_of(tensor);
    const auto dot = tensor.name.rfind('.');
    const auto share = shares.find(tensor.name.substr(0, dot));
    if (tensor.name == plan.embedding) {
      total += bytes / ranks;
    } else if (share == shares.end()) {
      total += bytes;  // norms, the position table
    } else if (share->second.row_split > 1) {
      total += tensor.name.substr(dot) == ".bias" ? bytes : bytes / share->second.row_split;
    } else {
      total += bytes * share->second.rows / share->second.module_rows;
    }
  }
  return total;
}

std::int64_t gpu_weight_bytes_per_rank(const model::ModelConfig& config, int ranks) {
  const graph::Plan plan = graph::build_plan(config, ranks);
  const auto shares = module_shares(plan);
  const StoredModel stored(config);
  const auto in_bf16 = [](const model::TensorSpec& tensor) { return 2 * bytes_of(tensor) / size_of(tensor.dtype); };
  std::int64_t total = in_bf16(stored.tensors().at(plan.embedding)) / ranks;
  for (const auto& [name, tensor] : stored.tensors()) {
    const bool is_of_linear = shares.contains(name.substr(0, name.rfind('.')));
    if (!is_of_linear && name != plan.embedding) total += in_bf16(tensor);  // norms, the position table
  }
  for (const auto& linear : plan.linears) {
    const std::int64_t n = graph::local_n(linear, ranks), k = graph::local_k(linear, ranks);
    total += backend::gpu_weight_bytes(stored.gpu_form(linear, ranks), n, k, config.quantization.group_size);
    if (linear.bias) total += 2 * n;
  }
  return total;
}

std::int64_t gpu_scratch_bytes_per_rank(const model::ModelConfig& config, int ranks) {
  const graph::Plan plan = graph::build_plan(config, ranks);
  const StoredModel stored(config);
  std::int64_t largest = 0;
  for (const auto& linear : plan.linears) {
    if (stored.gpu_form(linear, ranks) == backend::WeightForm::kDense) continue;
    largest = std::max(largest, std::int64_t{2} * graph::local_n(linear, ranks) * graph::local_k(linear, ranks));
  }
  return largest;
}

std::int64_t activation_bytes_per_rank(const model::ModelConfig& config, const profile::EngineOptions& options,
                                       bool is_gpu) {
  const graph::Plan plan = graph::build_plan(config, options.tensor_parallel_size);
  const std::int64_t element = is_gpu ? 2 : 4, logit = 4;
  const RowBytes text = row_bytes_of(plan.text, element), head = row_bytes_of(plan.head, logit),
                 vision = row_bytes_of(plan.vision, element);
  const std::int64_t text_bytes =
      text.tokens * options.max_num_batched_tokens + (text.outputs + head.outputs) * options.max_num_seqs;
  const std::int64_t picture = largest_picture_tokens(config, options);
  const std::int64_t vision_bytes = (vision.patches * config.vision.merge_unit() + vision.merged) * picture;
  const std::int64_t levels = 1 + static_cast<std::int64_t>(config.vision.deepstack_indexes.size());
  const std::int64_t cached = picture == 0 ? 0 : std::max<std::int64_t>(options.max_num_batched_tokens, picture);
  return std::max(text_bytes, vision_bytes) + cached * levels * config.vision.out_hidden_size * element;
}

KvCapacity kv_capacity(const model::ModelConfig& config, const MemoryPlan& plan, profile::KvCacheDtype dtype) {
  KvCapacity capacity;
  capacity.dtype = dtype;
  capacity.block_bytes = static_cast<std::int64_t>(backend::kv_block_bytes(config, plan.ranks, dtype, plan.block_size));
  capacity.num_blocks = std::max<std::int64_t>(0, plan.kv) / capacity.block_bytes;
  capacity.tokens = capacity.num_blocks * plan.block_size;
  const std::int64_t blocks_per_sequence = (plan.max_model_len + plan.block_size - 1) / plan.block_size;
  capacity.full_sequences = capacity.num_blocks / blocks_per_sequence;
  return capacity;
}

MemoryPlan plan_memory(const model::ModelConfig& config, const profile::EngineOptions& options,
                       const DeviceMemory& devices) {
  if (devices.is_gpu && options.tensor_parallel_size > devices.count) {
    throw DeviceError(fmt::format("engine.tensor_parallel_size {} needs as many GPUs; there are {} ({})",
                                  options.tensor_parallel_size, devices.count, devices.name));
  }
  MemoryPlan plan;
  plan.ranks = options.tensor_parallel_size;
  plan.is_gpu = devices.is_gpu;
  plan.block_size = options.block_size;
  plan.max_model_len = max_model_len_of(config, options);
  plan.device = devices.bytes;
  plan.weights =
      devices.is_gpu ? gpu_weight_bytes_per_rank(config, plan.ranks) : weight_bytes_per_rank(config, plan.ranks);
  plan.activations = activation_bytes_per_rank(config, options, devices.is_gpu);
  if (devices.is_gpu) {
    plan.usable = static_cast<std::int64_t>(static_cast<double>(devices.bytes) * options.gpu_memory_utilization);
    plan.scratch = gpu_scratch_bytes_per_rank(config, plan.ranks);
    plan.runtime = kGpuRuntime;
    plan.kv = plan.usable - plan.weights - plan.activations - plan.scratch - plan.runtime;
  } else {
    plan.usable = devices.bytes / plan.ranks;
    plan.kv = static_cast<std::int64_t>(options.cpu_kv_cache_gib * kGiB);
  }
  for (const auto dtype : {profile::KvCacheDtype::kFp8E4M3, profile::KvCacheDtype::kBFloat16}) {
    plan.capacities.push_back(kv_capacity(config, plan, dtype));
  }
  return plan;
}

void require_fits(const MemoryPlan& plan, const KvCapacity& capacity) {
  const std::string sequence = fmt::format("one sequence of engine.max_model_len {} with a {} cache",
                                           plan.max_model_len, profile::name_of(capacity.dtype));
  if (!plan.is_gpu && plan.weights + plan.activations + plan.kv > plan.usable) {
    throw DeviceError(
        fmt::format("not enough memory: each of {} ranks needs {} for weights, activations and KV cache, and has {}: "
                    "lower engine.cpu_kv_cache_gib or choose a smaller model",
                    plan.ranks, in_gib(plan.weights + plan.activations + plan.kv), in_gib(plan.usable)));
  }
  if (capacity.full_sequences > 0) return;
  if (!plan.is_gpu) {
    throw DeviceError(fmt::format("engine.cpu_kv_cache_gib ({}) cannot hold {}: raise it, or lower max_model_len",
                                  in_gib(plan.kv), sequence));
  }
  throw DeviceError(
      fmt::format("a rank of {} ({} usable) cannot hold {}: weights take {}, activations {}, {} is left; lower "
                  "engine.max_model_len or engine.max_num_batched_tokens, or raise engine.tensor_parallel_size",
                  in_gib(plan.device), in_gib(plan.usable), sequence, in_gib(plan.weights), in_gib(plan.activations),
                  in_gib(std::max<std::int64_t>(0, plan.kv))));
}

model::ModelConfig as_fp8_checkpoint(model::ModelConfig config) {
  config.quantization = {};
  config.quantization.format = model::QuantizationConfig::Format::kFp8Block;
  config.quantization.bits = 8;
  config.quantization.group_size = 128;
  config.quantization.symmetric = true;
  config.quantization.ignore = {"lm_head", "model.visual"};  // as its modules_to_not_convert
  return config;
}

}  // namespace qwenbench::engine
