// One validated, immutable description of an experiment: which model, which engine settings, which KV-cache variants,
// which workload. Argument names and meanings are vLLM's.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qwenbench::profile {

enum class Device { kAuto, kCpu, kCuda };
enum class KvCacheDtype { kFloat32, kBFloat16, kFp8E4M3 };
enum class Switch { kAuto, kOn, kOff };

struct EngineOptions {
  Device device = Device::kAuto;
  int tensor_parallel_size = 1;
  double gpu_memory_utilization = 0.9;  // of a device's memory; on a CPU see cpu_kv_cache_gib
  int max_model_len = 0;                // tokens; 0: the model's max_position_embeddings
  int max_num_seqs = 16;
  int max_num_batched_tokens = 2048;  // tokens of one step
  bool enable_chunked_prefill = true;
  bool enable_prefix_caching = false;
  std::map<std::string, int> limit_mm_per_prompt{{"image", 1}};
  int block_size = 64;  // tokens of one KV block
  bool cuda_graphs = true;
  std::string attention_dtype = "auto";  // auto | fp8
  std::string all_reduce = "auto";       // auto | p2p | nccl | host
  Switch pin_memory = Switch::kAuto;
  int cpu_threads = 0;             // over all ranks; 0: every available core
  double cpu_kv_cache_gib = 0.25;  // KV memory of a CPU run, per rank (vLLM: VLLM_CPU_KVCACHE_SPACE)
};

/// One KV-cache setting under test. The first variant of a profile is the reference.
struct Variant {
  std::string name;
  KvCacheDtype kv_cache_dtype = KvCacheDtype::kBFloat16;
  std::string kv_scales = "unit";  // unit | calibrate | checkpoint | a scale file's path
};

struct CalibrationOptions {
  std::string dataset = "calibration";
  std::string method = "absmax";       // absmax | percentile | mse | attention_mse | bound | vllm
  std::string granularity = "tensor";  // tensor | head
  double percentile = 99.99;           // method percentile, in percent
  std::string round = "none";          // none | pow2: up to the next power of two
  int num_samples = 512;               // requests, spread evenly over the dataset
  int settle_after = 32;               // requests after which settled scales end the calibration; 0: never
  int max_tokens = 8;                  // generated after a conversation without an answer: decoding is seen too
};

/// An inclusive range; one number in JSON means both ends.
struct Range {
  int min = 0, max = 0;
};

struct RandomWorkload {       // "dataset": "random"
  Range input_len{256, 256};  // text tokens of a prompt
  Range output_len{128, 128};
  std::vector<std::array<int, 2>> image_sizes;  // {height, width}, taken in turn
  double image_share = 0;                       // share of the requests that carry one image
};

struct WorkloadOptions {
  std::string dataset = "prompts";  // name in datasets/, a path, or "random"
  RandomWorkload random;
  int num_prompts = 64;  // requests of one trial; a smaller dataset is repeated
  int max_tokens = 128;
  bool ignore_eos = true;
  double temperature = 0;
  double top_p = 1;
  int top_k = 0;                                                  // 0: off
  double request_rate = std::numeric_limits<double>::infinity();  // requests per second
  int max_concurrency = 16;
  double burstiness = 1.0;  // shape of the gamma distribution of gaps; 1: Poisson
  struct {
    int groups = 0, tokens = 0;
  } shared_prefix;
  int trials = 12;
  int warmup_prompts = 8;
  std::uint64_t seed = 0;
};

struct QualityOptions {
  std::string dataset = "quality";  // "" : no quality measurement
  int num_samples = 0;              // requests, spread evenly over the dataset; 0: all
  std::map<std::string, double> ceiling{{"kld_mean", 0.02}};
  std::map<std::string, double> minimum_effect;  // defaults: shared by every comparison (stats)
};

struct Slo {
  std::string metric;  // "ttft_ms", "output_throughput", ...
  std::string stat;    // "p50", "mean", ...; empty for scalars
  std::optional<double> min, max;
};

struct Profile {
  std::string name;
  std::string model;                 // a directory (relative to home(), or ./ to the working folder) or a hub id
  std::string model_config;          // a directory with config.json that stands in for a model that is not on this
                                     // machine: for dry runs and load_format dummy only
  std::string load_format = "auto";  // auto | dummy
  EngineOptions engine;
  std::vector<Variant> variants;
  CalibrationOptions calibration;
  WorkloadOptions workload;
  QualityOptions quality;
  std::vector<Slo> slo;
};

/// `name` is profiles/NAME.json or a path. `overrides` are "--set" texts: "engine.max_num_seqs=8" (the value is JSON,
/// or else a string). Throws InputError: unknown key (naming the nearest), wrong type, value out of range, extends
/// loop.
Profile load_profile(const std::string& name, const std::vector<std::string>& overrides);

/// The same from JSON text; `source` stands in error messages. A relative "extends" is looked up in `folder`.
Profile parse_profile(const std::string& text, const std::string& source, const std::filesystem::path& folder,
                      const std::vector<std::string>& overrides = {});

/// The resolved profile as JSON text, every field present; load_profile of it gives the same Profile.
std::string to_json(const Profile& profile);

/// "float32", "bfloat16", "fp8_e4m3".
std::string_view name_of(KvCacheDtype dtype);

/// Where profiles/ and datasets/ are: $QWENBENCH_HOME, else the source tree of this build, else beside the executable.
std::filesystem::path home();

/// A path that a profile names: absolute, "./..." and "../..." as they stand, else below home() where it exists there,
/// else relative to the working folder.
std::filesystem::path resolve_path(const std::string& path);

}  // namespace qwenbench::profile
