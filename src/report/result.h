// The whole result of one experiment as plain data: what measure and quality hand over, what report writes and compare
// reads. Statistics are derived from the raw samples that stand beside them. Units stand in the name or in the comment;
// nullopt means "not measured", never zero. The names in the file are those of result_file.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qwenbench::report {

// ---------------------------------------------------------------------------------------------------------------------
// Where it ran

struct Device {
  std::string name;
  std::string uuid;
  std::string sm_version;               // "9.0"; empty on a CPU
  std::int64_t global_memory_size = 0;  // bytes
  std::optional<double> power_limit_w;
  std::optional<double> sm_clock_mhz;
};

struct Environment {
  std::string build_commit;  // "" in a tree without git
  std::optional<bool> git_is_dirty;
  std::string compiler;                                    // "GNU 12.2.0"
  std::string build_type;                                  // "Release"
  std::string cpu_info;                                    // model name, sockets, cores, the SIMD level in use
  int cpu_cores = 0;                                       // that this process may run on
  std::int64_t memory_size = 0;                            // bytes of main memory
  std::string os;                                          // kernel name and release
  std::vector<Device> devices;                             // empty on a CPU
  std::string driver_version, cuda_version, nccl_version;  // "" where there is none
  std::string topology;                                    // how the devices are connected, "" for none or one
  std::optional<bool> p2p;                                 // peer access between all devices; null for fewer than two
  bool pin_memory = false;
  bool wsl = false;
};

struct RankMemory {  // bytes on one rank
  std::int64_t weights = 0, kv = 0, activations = 0, free = 0;
};

struct EngineInfo {
  std::string model;                   // directory or hub id
  std::string model_fingerprint;       // hash of tensor headers, samples and config
  std::string quantization;            // QuantizationConfig::describe()
  std::string weights = "checkpoint";  // "checkpoint" | "dummy"
  std::string device = "cpu";          // "cpu" | "cuda"
  int tp_size = 1;
  int kv_block_size = 0;                                     // tokens
  std::int64_t num_kv_blocks = 0;                            // of the first variant; each variant says its own
  std::vector<RankMemory> memory;                            // one per rank
  std::optional<double> read_bandwidth_gb_s = std::nullopt;  // measured, all ranks together: bandwidth_share is of it
  std::optional<std::string> all_reduce = std::nullopt;      // "p2p" | "nccl" | "host"; null on one GPU and on a CPU

  bool dummy_weights() const { return weights == "dummy"; }
};

struct WorkloadInfo {
  std::string dataset_name;
  std::string dataset_sha256, requests_sha256, images_sha256;  // "" where there is none
  std::int64_t num_prompts = 0;
  double request_rate = 0;  // requests per second; infinity = all at once
  double burstiness = 1.0;
  int max_concurrency = 0;
  std::uint64_t seed = 0;
};

/// KV_SCALE_UNIT, Q_PROB_SCALE_UNIT, Q_SCALE_FROM_K, PIN_MEMORY_OFF, P2P_UNAVAILABLE, ...
struct Warning {
  std::string code;
  std::string message;
  std::optional<std::string> measured_impact;  // what it cost in this run, in words with units
};

// ---------------------------------------------------------------------------------------------------------------------
// Timing

/// One request of one trial. Times are seconds of the target's clock.
struct RequestRecord {
  std::string id;
  int trial = 0;
  double arrival = 0;          // moment of sending, seconds after the trial's start
  double queue_time = 0;       // waited for max_concurrency before `arrival`: not part of ttft
  std::optional<double> ttft;  // first token - arrival; null where no token came
  std::vector<double> itls;    // gaps between consecutive tokens
  int input_len = 0;           // tokens, image tokens included
  int input_vision_len = 0;    // tokens
  int output_len = 0;          // tokens
  std::optional<int>
      cached_tokens;  // of the prompt, from the prefix cache; null in older files and where no token came
  std::string text;   // what was generated
  std::string error;  // empty = completed

  bool completed() const { return error.empty() && ttft.has_value(); }
};

/// Over the samples of one metric. Sample standard deviation; percentiles interpolate linearly (NumPy's default).
/// Null where there are too few samples: std below 2, p99 below 100.
struct Distribution {
  std::int64_t n = 0;
  std::optional<double> mean, median, std, p50, p90, p95, p99;
};

/// TTFT of the requests for which the prefix cache had a part of the prompt, and of the others.
struct PrefixSummary {
  Distribution ttft_hit, ttft_miss;        // milliseconds
  std::optional<double> request_hit_rate;  // requests with any hit, 0..1
};

/// Derived by summary.h, of one trial or of all trials of a variant.
struct TimingSummary {
  double duration = 0;                     // seconds of the measured phase (all trials together for a variant)
  std::int64_t completed = 0, failed = 0;  // requests
  std::int64_t total_input_tokens = 0, total_input_vision_tokens = 0, total_output_tokens = 0;  // completed requests
  std::optional<double> request_throughput;      // completed requests per second
  std::optional<double> request_goodput;         // requests per second meeting every slo; null without a request slo
  std::optional<double> output_throughput;       // output tokens per second
  std::optional<double> total_token_throughput;  // input and output tokens per second
  std::optional<double> decode_throughput;       // tokens per second of steps that only decode
  std::optional<double> bandwidth_share;         // of the decode steps' bandwidth limit, 0..1
  std::int64_t preemptions = 0;
  std::optional<double> kv_cache_hit_rate;  // prefix-cache hits / queried tokens, 0..1; null without prefix caching
  std::optional<double> comm_share;         // share of the step time spent in collectives, 0..1; mean over ranks
  std::optional<double> comm_share_min, comm_share_max;  // of the ranks with the least and the most
  std::optional<PrefixSummary> prefix;                   // null without prefix caching
  Distribution ttft, tpot, itl, e2el;                    // milliseconds
  std::optional<double> energy_per_token_j;              // GPU energy of everything, by output tokens
};

/// What the runner counts in one trial of one variant (raw), and the statistics that summary.h derives.
struct Trial {
  int index = 0;                          // pairs the trials of the variants: same index = same block
  int position = 0;                       // place in the whole run's order of execution
  double duration = 0;                    // seconds of the measured phase
  std::int64_t decode_tokens = 0;         // in steps that only decode
  double decode_seconds = 0;              // of those steps
  std::optional<double> bandwidth_share;  // of those steps, 0..1
  std::int64_t preemptions = 0;
  std::int64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;     // 0, 0 without prefix caching
  std::optional<double> comm_share, comm_share_min, comm_share_max;  // 0..1
  std::optional<double> energy_j = std::nullopt;                     // of the GPUs, joules
  std::optional<bool> throttled = std::nullopt;                      // a GPU was, before or after the trial
  TimingSummary summary;
};

// ---------------------------------------------------------------------------------------------------------------------
// Quality

/// One scored request of one variant: sums over its scored tokens, so that every statistic (and a paired test between
/// files) can be made without the tokens. ln is natural; p is the probability of the dataset's token.
struct QualityRequest {
  std::string id;
  std::string task;  // "" = plain text or no task
  bool has_image = false;
  std::int64_t n_tokens = 0;      // scored tokens; the sums below run over them
  double kld_sum = 0;             // KL(reference || variant), nats
  std::int64_t top1_matches = 0;  // argmax equal to the reference's argmax
  double ln_p_sum = 0;            // of the variant
  double ln_p_reference_sum = 0;  // of the reference
  double delta_p_sum = 0;         // p(variant) - p(reference)
  double delta_p_square_sum = 0;
  std::optional<bool> correct;  // the task's answer, exact match; null where there is none
  int greedy_tokens = 0;        // tokens compared under greedy decoding; 0 = not decoded
  int exact_match_tokens = 0;   // common prefix with the reference's; == greedy_tokens: no divergence
};

/// What src/quality hands over for one variant. For the reference itself the comparison is its second scoring with
/// another batch composition and chunking against its first: the noise floor (all zero on a CPU, by construction).
struct QualitySamples {
  std::string reference;  // name of the reference variant
  std::vector<QualityRequest> requests;
  // Pooled over all scored tokens, in step with each other; used for quantiles and positions, not written to the file.
  std::vector<float> kld;  // nats
  std::vector<float> delta_p;
  std::vector<std::uint8_t> same_top1;  // 0 | 1
  std::vector<std::int32_t> position;   // of the token in its sequence
};

struct KldSummary {                         // nats per token
  std::optional<double> mean, mean_stderr;  // standard error clustered by request
  std::optional<double> median, p90, p95, p99, p999, max;
};

struct DeltaPSummary {  // p(variant) - p(reference) of the dataset's token
  std::optional<double> mean, mean_stderr, rms;
  std::optional<double> min, p01, p05, p10, p25, median, p75, p90, p95, p99, max;
};

struct DivergenceSummary {  // greedy decoding against the reference
  std::int64_t n = 0;       // requests compared
  std::int64_t diverged = 0;
  std::optional<double> mean_exact_match_tokens;
  std::optional<double> median_first_divergence;  // token index, over the diverged ones
};

struct PositionBucket {  // tokens at position from <= p < to
  std::int64_t from = 0, to = 0;
  std::int64_t n_tokens = 0;
  std::optional<double> kld_mean, same_top1;
};

struct InputKindSummary {  // requests with pictures, and without, apart
  std::string kind;        // "text" | "image"
  std::int64_t n_requests = 0, n_tokens = 0;
  std::optional<double> kld_mean, kld_mean_stderr, same_top1;
};

struct TaskSummary {
  std::string name;
  std::int64_t n = 0, correct = 0;
  std::optional<double> accuracy;  // 0..1
};

struct Quality {
  std::string reference;  // name of the variant compared with
  std::int64_t n_tokens = 0;
  KldSummary kld;
  std::optional<double> ppl, ppl_reference;
  std::optional<double> ln_ppl_ratio, ln_ppl_ratio_stderr;  // ln(ppl / ppl_reference), paired, clustered by request
  std::optional<double> same_top1, same_top1_stderr;        // 0..1
  DeltaPSummary delta_p;
  DivergenceSummary first_divergence;
  std::vector<PositionBucket> by_position;
  std::vector<InputKindSummary> by_input;
  std::vector<TaskSummary> tasks;        // last one: name "all", where there is more than one
  std::vector<QualityRequest> requests;  // kept in the file by columns
};

// ---------------------------------------------------------------------------------------------------------------------
// Variants

/// What FP8 does to K and V of one KV head, of text or image tokens alone, at the scale in use. Shares are 0..1.
struct HeadDiagnostics {
  int head = 0;
  std::string input;  // text | image
  double k_amax = 0, v_amax = 0;
  double k_saturated = 0, v_saturated = 0, k_subnormal = 0, v_subnormal = 0, k_flushed = 0, v_flushed = 0;
  std::optional<double> k_snr_db, v_snr_db;
};

/// Scales are dequantization multipliers: one value per layer, or one per KV head. Diagnostics at the scale in use.
struct LayerScales {
  int layer = 0;
  std::vector<double> k_scale, v_scale;
  std::optional<double> q_scale, prob_scale;
  std::optional<double> k_amax, v_amax;  // largest magnitude that calibration saw
  std::optional<double> k_saturated, v_saturated, k_subnormal, v_subnormal, k_flushed, v_flushed;  // shares, 0..1
  std::optional<double> k_snr_db, v_snr_db;
  std::optional<double> k_norm_bound;                 // no K can exceed it, whatever the prompt
  std::optional<std::vector<HeadDiagnostics>> heads;  // null where nothing was calibrated
};

struct KvScales {
  std::string method;                  // none | unit | absmax | percentile | mse | ... | checkpoint | file
  std::string granularity;             // tensor | head | "" for none and unit
  std::string sha256;                  // of the scale values; "" for none and unit
  std::string calibration_set_sha256;  // "" where nothing was calibrated
  std::vector<LayerScales> layers;
};

struct VariantResult {
  std::string name;
  std::string kv_cache_dtype;  // float32 | bfloat16 | fp8_e4m3
  KvScales kv_scales;
  std::int64_t num_kv_blocks = 0;
  TimingSummary summary;
  std::vector<Trial> trials;
  std::vector<RequestRecord> requests;  // of all trials
  std::optional<Quality> quality;       // null with dummy weights and where nothing was scored
};

// ---------------------------------------------------------------------------------------------------------------------
// Judgement

/// One line of the profile's "slo". `stat` (mean, median, std, p50, p90, p95, p99) for latency metrics, else empty.
struct SloLimit {
  std::string metric;  // ttft_ms, tpot_ms, itl_ms, e2el_ms, output_throughput, kld_mean, ...
  std::string stat;
  std::optional<double> max, min;  // in the metric's unit
};

struct SloResult {
  SloLimit limit;
  std::string variant;
  std::optional<double> observed;  // null (and pass = false) where it could not be measured
  bool pass = false;
};

/// One metric of one pair of variants. Changes are candidate against baseline: relative (candidate / baseline - 1) or a
/// difference in the metric's unit.
struct Comparison {
  std::string metric;
  std::string unit;
  std::string baseline, candidate;  // variant names
  std::optional<double> baseline_value, candidate_value;
  bool relative = false;  // of change, interval and minimum effect
  std::optional<double> change;
  std::optional<double> ci_low, ci_high;      // 95 % interval of the change
  std::optional<double> ci90_low, ci90_high;  // 90 % interval (TOST)
  std::optional<double> p_value;              // two-sided, of no change
  std::optional<double> p_adjusted;           // Holm over all metrics of this pair
  double minimum_effect = 0;
  std::string test;    // "t on log ratios", "bootstrap over requests", "McNemar"
  std::int64_t n = 0;  // paired units: trials or requests
  bool lower_is_better = true;
  bool primary = false;                        // decides the verdict; the others can only veto
  bool could_decide = true;                    // false: this many samples can never reach significance after Holm
  std::optional<std::int64_t> samples_needed;  // units that would do, where inconclusive
  std::string verdict;                         // regression | improvement | same | inconclusive
};

struct Verdict {
  std::string status;                // reject-fp8 | adopt-calibrated | accept-baseline | inconclusive
  std::vector<std::string> reasons;  // sentences; with inconclusive, what more samples would do
};

struct Result {
  int schema_version = 1;
  std::string benchmark_id;
  std::string start_time, end_time;  // ISO 8601, UTC
  bool was_cancelled = false;
  std::string cli_command;
  Environment environment;
  std::string profile_json = "{}";  // the resolved profile, a JSON object
  EngineInfo engine;
  WorkloadInfo workload;
  std::vector<Warning> warnings;
  std::vector<VariantResult> variants;  // the first is the reference
  std::vector<Comparison> comparisons;
  std::vector<SloResult> slo;
  std::optional<Verdict> verdict;  // null with dummy weights, or without quality
};

}  // namespace qwenbench::report
