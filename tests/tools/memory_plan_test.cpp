// The memory plan against arithmetic by hand, from the table of Qwen3-VL's published sizes.
#include "engine/memory_plan.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

/// Qwen3-VL-32B: hidden 5120, 64 layers, 64 heads of 128 over 8 KV heads, intermediate 25600, vocabulary 151936, not
/// tied; a tower of 27 blocks, 1152 / 4304 / 16 heads, DeepStack after 8, 16, 24. 4 bit, groups of `group`, asymmetric.
model::ModelConfig config_32b(int group) {
  model::ModelConfig c;
  c.text = {.hidden_size = 5120,
            .num_layers = 64,
            .num_heads = 64,
            .num_kv_heads = 8,
            .head_dim = 128,
            .intermediate_size = 25600,
            .vocab_size = 151936,
            .max_position_embeddings = 262144,
            .rms_norm_eps = 1e-6f,
            .rope_theta = 5e6,
            .mrope_section = {24, 20, 20},
            .tie_word_embeddings = false};
  c.vision.depth = 27;
  c.vision.hidden_size = 1152;
  c.vision.intermediate_size = 4304;
  c.vision.num_heads = 16;
  c.vision.out_hidden_size = 5120;
  c.vision.deepstack_indexes = {8, 16, 24};
  c.quantization.format = model::QuantizationConfig::Format::kPackQuantized;
  c.quantization.bits = 4;
  c.quantization.group_size = group;
  c.quantization.ignore = {"lm_head", "re:model\\.visual\\."};
  return c;
}

constexpr std::int64_t kLayerParameters = 5120LL * (8192 + 1024 + 1024) + 8192LL * 5120 + 3LL * 5120 * 25600;
constexpr std::int64_t kLayerNorms = 2LL * (2 * 5120 + 2 * 128);
constexpr std::int64_t kEmbeddingAndHead = 2LL * 2 * 151936 * 5120;

/// bf16, on one of two ranks: matrices in halves; norms, patch embedding, positions and biases behind a sum whole.
constexpr std::int64_t vision_bytes_of_half() {
  const std::int64_t block =
      (3LL * 1152 * 1152 + 1152 * 1152 + 2LL * 1152 * 4304) / 2 + (3 * 1152 + 4304) / 2 + 2 * 1152 + 4 * 1152;
  const std::int64_t merger = (4608LL * 4608 + 4608) / 2 + 4608LL * 5120 / 2 + 5120;
  const std::int64_t norms = 2 * 1152 + 3 * 2 * 4608;
  const std::int64_t ends = 1152LL * 1536 + 1152 + 2304LL * 1152;
  return 2 * (27 * block + 4 * merger + norms + ends);
}

profile::EngineOptions medium() {
  profile::EngineOptions options;
  options.tensor_parallel_size = 2;
  options.gpu_memory_utilization = 0.85;
  options.max_model_len = 8192;
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 2048;
  options.block_size = 64;
  return options;
}

}  // namespace

TEST_CASE("weights: 32B in 4 bit on two ranks") {
  for (const int group : {32, 128}) {
    CAPTURE(group);
    // Codes half a byte, a bf16 scale and half a byte of zero point a group; weight_shape (two int64) of 7 Linears,
    // which a split halves along.
    const std::int64_t layer =
        kLayerParameters / 2 + kLayerParameters / group * 2 + kLayerParameters / group / 2 + 7 * 16;
    const std::int64_t expected =
        64 * (layer / 2 + kLayerNorms) + 2 * 5120 + kEmbeddingAndHead / 2 + vision_bytes_of_half();
    CHECK(weight_bytes_per_rank(config_32b(group), 2) == expected);
  }
}

TEST_CASE("weights: the official FP8 form on two ranks") {
  // One byte a weight, and a bf16 scale for every 128 x 128 of them: every size of the decoder is a multiple of 128.
  const std::int64_t layer = kLayerParameters + kLayerParameters / (128 * 128) * 2;
  const std::int64_t expected =
      64 * (layer / 2 + kLayerNorms) + 2 * 5120 + kEmbeddingAndHead / 2 + vision_bytes_of_half();
  CHECK(weight_bytes_per_rank(as_fp8_checkpoint(config_32b(32)), 2) == expected);
  CHECK(weight_bytes_per_rank(model::read_model_config("../datasets/models/qwen3-vl-32b-fp8"), 2) == expected);
}

TEST_CASE("weights: a tied embedding counts once, replicated KV heads on every rank") {
  model::ModelConfig c = config_32b(128);
  const std::int64_t untied = weight_bytes_per_rank(c, 2);
  c.text.tie_word_embeddings = true;
  CHECK(untied - weight_bytes_per_rank(c, 2) == 151936LL * 5120 * 2 / 2);
  // 16 ranks share 8 KV heads: each holds one whole head of K and V, 128 rows of 5120.
  model::ModelConfig plain = config_32b(128);
  plain.quantization = {};
  plain.text.num_layers = 3;
  const std::int64_t one = weight_bytes_per_rank(plain, 1), sixteen = weight_bytes_per_rank(plain, 16);
  plain.text.num_layers = 4;
  const std::int64_t layer = weight_bytes_per_rank(plain, 1) - one,
                     layer_of_16 = weight_bytes_per_rank(plain, 16) - sixteen;
  CHECK(layer_of_16 == (layer - kLayerNorms - 2 * 2 * 1024 * 5120) / 16 + 2 * 2 * 128 * 5120 + kLayerNorms);
}

TEST_CASE("weights on a GPU: packed 4 bit, dense where the kernels have no form, scratch for the largest matrix") {
  for (const int group : {32, 128}) {
    CAPTURE(group);
    // A scale in two bytes and a zero point in half a byte a group, also where the checkpoint is symmetric.
    const std::int64_t layer = kLayerParameters / 2 + kLayerParameters / group * 5 / 2;
    const std::int64_t expected =
        64 * (layer / 2 + kLayerNorms) + 2 * 5120 + kEmbeddingAndHead / 2 + vision_bytes_of_half();
    model::ModelConfig config = config_32b(group);
    CHECK(gpu_weight_bytes_per_rank(config, 2) == expected);
    config.quantization.symmetric = true;
    CHECK(gpu_weight_bytes_per_rank(config, 2) == expected);
    CHECK(gpu_scratch_bytes_per_rank(config, 2) == 2LL * 25600 * 5120);  // half of gate and up
    // Groups in an order of their own: dense, and nothing is left to be dequantized in a step.
    config.quantization.activation_order = true;
    CHECK(gpu_weight_bytes_per_rank(config, 2) == expected + 64 * (2 * kLayerParameters - layer) / 2);
    CHECK(gpu_scratch_bytes_per_rank(config, 2) == 0);
  }
  // One part of a fused matrix in 16 bit: so is all of it.
  model::ModelConfig mixed = config_32b(128);
  const std::int64_t packed = gpu_weight_bytes_per_rank(mixed, 2);
  mixed.quantization.ignore.push_back("model.language_model.layers.3.self_attn.k_proj");
  const std::int64_t qkv = 5120LL * (8192 + 1024 + 1024) / 2;
  CHECK(gpu_weight_bytes_per_rank(mixed, 2) == packed + 2 * qkv - qkv / 2 - qkv / 128 * 5 / 2);
  model::ModelConfig tied = config_32b(128);
  tied.text.tie_word_embeddings = true;  // a GPU keeps the embedding and the head apart
  CHECK(gpu_weight_bytes_per_rank(tied, 2) == packed);
}

TEST_CASE("KV cache: blocks and sequences of 8k on 2 x 24 GiB, 4 bit against the FP8 checkpoint") {
  const DeviceMemory devices = parse_devices("2x24GiB,sm_89");
  for (const auto& config : {config_32b(32), config_32b(128), as_fp8_checkpoint(config_32b(128))}) {
    const MemoryPlan plan = plan_memory(config, medium(), devices);
    CHECK(plan.usable == static_cast<std::int64_t>(24 * 0x1p30 * 0.85));
    CHECK(plan.kv == plan.usable - plan.weights - plan.activations - plan.scratch - (1 << 30));
    REQUIRE(plan.capacities.size() == 2);
    // One token of one rank: K and V of 64 layers, 4 of the 8 KV heads, 128 values each. 128 blocks hold 8192 tokens.
    const std::int64_t fp8_block = 2 * 64 * 4 * 128 * 64, bf16_block = 2 * fp8_block;
    CHECK(plan.capacities[0].num_blocks == plan.kv / fp8_block);
    CHECK(plan.capacities[1].num_blocks == plan.kv / bf16_block);
    CHECK(plan.capacities[0].full_sequences == plan.kv / fp8_block / 128);
    CHECK(plan.capacities[1].full_sequences == plan.kv / bf16_block / 128);
  }
}

TEST_CASE("activations: the stated formula, by hand for one program") {
  // No pictures, so that the text program decides. A row of a decoder layer: residual, normed, partial (5120 each), q
  // and attended (32 heads of 128 each), gate and up (25600 together), their product (12800). All layers but the last
  // have 2048 such rows and qkv (32 + 8 heads) in 2 bytes, the last one those of the 16 wanted tokens; the residual
  // takes 2 bytes more an element; the head 5120 + 75968 + 151936 in 4 bytes for each.
  profile::EngineOptions options = medium();
  options.limit_mm_per_prompt = {{"image", 0}};
  const std::int64_t row = 4 * 5120 + 2 * 32 * 128 + 25600 + 12800;
  const std::int64_t expected = 2 * 2048 * (row + 40 * 128) + 2 * 16 * row + 4 * 16 * (5120 + 75968 + 151936);
  CHECK(activation_bytes_per_rank(config_32b(128), options, true) == expected);
}

TEST_CASE("a plan that cannot hold one sequence is refused, with what to change") {
  const DeviceMemory small = parse_devices("2x12GiB,sm_89");
  const MemoryPlan plan = plan_memory(config_32b(128), medium(), small);
  CHECK(plan.capacities[0].full_sequences == 0);
  CHECK_THROWS_WITH_AS(require_fits(plan, plan.capacities[0]), doctest::Contains("lower engine.max_model_len"),
                       DeviceError);
  CHECK_THROWS_WITH_AS(plan_memory(config_32b(128), medium(), parse_devices("24GiB,sm_89")),
                       doctest::Contains("engine.tensor_parallel_size 2"), DeviceError);
  const MemoryPlan fits = plan_memory(config_32b(128), medium(), parse_devices("2x24GiB,sm_89"));
  CHECK_NOTHROW(require_fits(fits, fits.capacities[1]));
  profile::EngineOptions on_cpu = medium();
  on_cpu.cpu_kv_cache_gib = 0.1;
  const DeviceMemory cpu{.is_gpu = false, .count = 1, .bytes = std::int64_t{1} << 40, .sm_version = 0, .name = "CPU"};
  const MemoryPlan tight = plan_memory(config_32b(128), on_cpu, cpu);
  CHECK_THROWS_WITH_AS(require_fits(tight, tight.capacities[0]), doctest::Contains("engine.cpu_kv_cache_gib"),
                       DeviceError);
}

TEST_CASE("--assume-devices") {
  const DeviceMemory two = parse_devices("2x24GiB,sm_89");
  CHECK(two.count == 2);
  CHECK(two.bytes == std::int64_t{24} << 30);
  CHECK(two.sm_version == 89);
  CHECK(two.is_gpu);
  CHECK(parse_devices("143771MiB,sm_90a").bytes == std::int64_t{143771} << 20);
  CHECK(parse_devices("1x79.5GiB,sm_120").sm_version == 120);
  for (const char* bad : {"", "24", "24GiB", "24GB,sm_89", "0x24GiB,sm_89", "2x24GiB,sm_", "2x24GiB,sm_89,",
                          "x24GiB,sm_89", "2x0GiB,sm_89", "2x24GiB,sm_89b"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_devices(bad), InputError);
  }
}
