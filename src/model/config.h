// What config.json, generation_config.json and preprocessor_config.json of a Qwen3-VL checkpoint say.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace qwenbench::model {

/// Text decoder. q head i reads KV head i / (num_heads / num_kv_heads).
struct TextConfig {
  int hidden_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;  // 128; never hidden_size / num_heads
  int intermediate_size = 0;
  int vocab_size = 0;
  int max_position_embeddings = 0;
  float rms_norm_eps = 0;
  double rope_theta = 0;
  std::array<int, 3> mrope_section{};  // T, H, W pairs of the interleaved M-RoPE; sums to head_dim / 2
  bool tie_word_embeddings = false;
};

/// Vision tower (ViT with DeepStack). head_dim = hidden_size / num_heads.
struct VisionConfig {
  int depth = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_heads = 0;
  int in_channels = 3;
  int patch_size = 16;
  int temporal_patch_size = 2;
  int spatial_merge_size = 2;
  int num_position_embeddings = 2304;  // a square table
  int out_hidden_size = 0;
  std::vector<int> deepstack_indexes;  // ViT blocks whose output is a DeepStack level, in order

  int head_dim() const { return hidden_size / num_heads; }
  int patch_dim() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
  int merge_unit() const { return spatial_merge_size * spatial_merge_size; }
};

/// quantization_config as far as shapes and reporting need it. How one module is stored is decided by its tensors
/// (weights.h), never by this.
struct QuantizationConfig {
  enum class Format { kNone, kPackQuantized, kAwqGemm, kFp8Block };
  Format format = Format::kNone;
  int bits = 16;
  int group_size = 0;
  bool symmetric = false;
  bool activation_order = false;    // compressed-tensors actorder "group": every weight has a weight_g_idx
  std::vector<std::string> ignore;  // module names that stay unquantized; "re:..." matches at the start
  bool kv_cache_scheme = false;     // the checkpoint says that it carries KV scales

  /// "none", "compressed-tensors w4a16 g32 asymmetric", ...: for reports.
  std::string describe() const;
  bool ignores(const std::string& module) const;
};

struct GenerationConfig {
  std::vector<std::int32_t> eos_token_ids;
};

/// HF's Qwen2VLImageProcessor settings. Sizes are areas in pixels.
struct ImageProcessorConfig {
  std::int64_t min_pixels = 65536;
  std::int64_t max_pixels = 16777216;
  int patch_size = 16;
  int temporal_patch_size = 2;
  int merge_size = 2;
  std::array<float, 3> mean{0.5f, 0.5f, 0.5f};
  std::array<float, 3> std{0.5f, 0.5f, 0.5f};
};

struct ModelConfig {
  TextConfig text;
  VisionConfig vision;
  QuantizationConfig quantization;
  GenerationConfig generation;
  ImageProcessorConfig image_processor;
  DType dtype = DType::kBF16;
  std::int32_t image_token_id = -1;
  std::int32_t video_token_id = -1;
  std::int32_t vision_start_token_id = -1;
  std::int32_t vision_end_token_id = -1;
};

/// Reads config.json (required) and, where present, generation_config.json and preprocessor_config.json of `directory`.
/// Throws InputError naming file and key: missing key, wrong type, a size that is zero or does not divide, an
/// unsupported architecture or rope type.
ModelConfig read_model_config(const std::filesystem::path& directory);

}  // namespace qwenbench::model
