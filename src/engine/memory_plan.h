// What fits where: bytes of weights, activations and KV cache of one rank, by arithmetic from the config alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "profile/profile.h"

namespace qwenbench::engine {

/// The devices that a plan is for: one a rank, or the one CPU that all ranks share.
struct DeviceMemory {
  bool is_gpu = false;
  int count = 1;           // devices
  std::int64_t bytes = 0;  // of one device; of the machine on a CPU
  int sm_version = 0;      // 89 for sm_89; 0 on a CPU
  std::string name;        // for people: "2 x 24 GiB, sm_89 (assumed)"
};

/// "2x24GiB,sm_89" (also "24GiB,sm_90", "1x143771MiB,sm_90a"). Throws InputError that shows the form.
DeviceMemory parse_devices(const std::string& text);

/// What `options.device` means on this machine: its GPUs (auto: where there are any), or its CPU. Throws DeviceError
/// where a GPU is asked for and none answers.
DeviceMemory available_devices(const profile::EngineOptions& options);

/// The KV cache of one rank at one storage format.
struct KvCapacity {
  profile::KvCacheDtype dtype = profile::KvCacheDtype::kBFloat16;
  std::int64_t block_bytes = 0;  // of one rank: all its layers and KV heads, K and V
  std::int64_t num_blocks = 0;
  std::int64_t tokens = 0;          // num_blocks * block_size
  std::int64_t full_sequences = 0;  // of max_model_len tokens, at the same time
};

struct MemoryPlan {
  int ranks = 1;
  bool is_gpu = false;
  int block_size = 0;     // tokens
  int max_model_len = 0;  // tokens
  // Bytes of one rank:
  std::int64_t device = 0;  // all of the device (a CPU: of the machine)
  std::int64_t usable = 0;  // device * gpu_memory_utilization (a CPU: the machine's share of one rank)
  std::int64_t weights = 0;
  std::int64_t activations = 0;
  std::int64_t scratch = 0;            // a GPU: where quantized matrices are dequantized for steps of many tokens
  std::int64_t runtime = 0;            // an allowance for context, communication buffers, workspaces, captured graphs
  std::int64_t kv = 0;                 // what is left for the cache (a CPU: cpu_kv_cache_gib); may be negative
  std::vector<KvCapacity> capacities;  // fp8_e4m3, bfloat16
};

/// Bytes of weights that one rank holds: the checkpoint's tensors in their stored form, split as graph::Plan splits
/// them (norms and biases of row-split Linears whole; an embedding that is tied to the head once).
std::int64_t weight_bytes_per_rank(const model::ModelConfig& config, int ranks);

/// Bytes that a GPU rank keeps of them: Linears in the form that backend::gpu_form() says, the rest in bf16; a head
/// that is tied to the embedding a second time.
std::int64_t gpu_weight_bytes_per_rank(const model::ModelConfig& config, int ranks);

/// Bytes of the largest quantized matrix of one GPU rank in bf16: products of many tokens dequantize into it.
std::int64_t gpu_scratch_bytes_per_rank(const model::ModelConfig& config, int ranks);

/// Upper bound of one rank's activation buffers. Formula: every buffer of a program (graph::Plan) at once; the text
/// program with max_num_batched_tokens rows and its outputs with max_num_seqs, the head with max_num_seqs; or the
/// vision program with the patches of the largest picture that the processor lets through and max_model_len has room
/// for, whichever needs more (they run one after the other); and the encoder cache, merged and DeepStack features of
/// max(max_num_batched_tokens, the largest picture) tokens. 2 bytes an element on a GPU, 4 on a CPU; wide buffers and
/// logits always 4.
std::int64_t activation_bytes_per_rank(const model::ModelConfig& config, const profile::EngineOptions& options,
                                       bool is_gpu);

/// Throws DeviceError where there are fewer devices than ranks, InputError where ranks do not divide the model.
MemoryPlan plan_memory(const model::ModelConfig& config, const profile::EngineOptions& options,
                       const DeviceMemory& devices);

/// How many blocks of `dtype` fit into the plan's KV memory.
KvCapacity kv_capacity(const model::ModelConfig& config, const MemoryPlan& plan, profile::KvCacheDtype dtype);

/// Throws DeviceError that says what to change where the cache cannot hold one sequence of max_model_len.
void require_fits(const MemoryPlan& plan, const KvCapacity& capacity);

/// The same model with its decoder in FP8 blocks of 128 x 128, as the official FP8 checkpoints are: vision tower,
/// embedding and head stay in 16 bit.
model::ModelConfig as_fp8_checkpoint(model::ModelConfig config);

}  // namespace qwenbench::engine
