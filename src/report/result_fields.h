// The schema: which member of which struct has which name in the file. Private to src/report; docs/result.schema.json
// says the same for others, and a test holds the two together.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "report/json_fields.h"
#include "report/result.h"

namespace qwenbench::report {

void fields(auto& v, Fields<Device> auto& x) {
  v("name", x.name);
  v("uuid", x.uuid);
  v("sm_version", x.sm_version);
  v("global_memory_size", x.global_memory_size);
  v("power_limit_w", x.power_limit_w);
  v("sm_clock_mhz", x.sm_clock_mhz);
}

void fields(auto& v, Fields<Environment> auto& x) {
  v("build_commit", x.build_commit);
  v("git_is_dirty", x.git_is_dirty);
  v("compiler", x.compiler);
  v("build_type", x.build_type);
  v("cpu_info", x.cpu_info);
  v("cpu_cores", x.cpu_cores);
  v("memory_size", x.memory_size);
  v("os", x.os);
  v("devices", x.devices);
  v("driver_version", x.driver_version);
  v("cuda_version", x.cuda_version);
  v("nccl_version", x.nccl_version);
  v("topology", x.topology);
  v("p2p", x.p2p);
  v("pin_memory", x.pin_memory);
  v("wsl", x.wsl);
}

void fields(auto& v, Fields<RankMemory> auto& x) {
  v("weights", x.weights);
  v("kv", x.kv);
  v("activations", x.activations);
  v("free", x.free);
}

void fields(auto& v, Fields<EngineInfo> auto& x) {
  v("model", x.model);
  v("model_fingerprint", x.model_fingerprint);
  v("quantization", x.quantization);
  v("weights", x.weights);
  v("device", x.device);
  v("tp_size", x.tp_size);
  v("read_bandwidth_gb_s", x.read_bandwidth_gb_s);
  v("kv_block_size", x.kv_block_size);
  v("num_kv_blocks", x.num_kv_blocks);
  v("memory", x.memory);
  v("all_reduce", x.all_reduce);
}

/// The rate of a closed loop is infinite, which JSON has no number for: "inf", as in vLLM's files.
template <class V>
void rate_field(V& v, const std::string& key, auto& rate) {
  if constexpr (V::kReads) {
    Json json;
    v(key, json);
    if (json.is_number()) {
      rate = json.template get<double>();
    } else if (json == "inf") {
      rate = std::numeric_limits<double>::infinity();
    } else {
      v.refuse(key, "a number or \"inf\" is expected");
    }
  } else {
    v(key, std::isinf(rate) ? Json("inf") : Json(rate));
  }
}

void fields(auto& v, Fields<WorkloadInfo> auto& x) {
  v("dataset_name", x.dataset_name);
  v("dataset_sha256", x.dataset_sha256);
  v("requests_sha256", x.requests_sha256);
  v("images_sha256", x.images_sha256);
  v("num_prompts", x.num_prompts);
  rate_field(v, "request_rate", x.request_rate);
  v("burstiness", x.burstiness);
  v("max_concurrency", x.max_concurrency);
  v("seed", x.seed);
}

void fields(auto& v, Fields<Warning> auto& x) {
  v("code", x.code);
  v("message", x.message);
  v("measured_impact", x.measured_impact);
}

/// Seconds, to 100 ns: below that there is only the clock's noise, and the file is a third smaller.
template <class V>
void seconds_field(V& v, const std::string& key, auto& value) {
  const auto rounded = [](double s) { return std::round(s * 1e7) / 1e7; };
  if constexpr (V::kReads) {
    v(key, value);
  } else if constexpr (requires { value.size(); }) {
    auto copy = value;
    for (double& s : copy) s = rounded(s);
    v(key, copy);
  } else if constexpr (requires { value.has_value(); }) {
    auto copy = value;
    if (copy) copy = rounded(*copy);
    v(key, copy);
  } else {
    v(key, rounded(value));
  }
}

void fields(auto& v, Fields<RequestRecord> auto& x) {
  v("id", x.id);
  v("trial", x.trial);
  seconds_field(v, "arrival", x.arrival);
  seconds_field(v, "queue_time", x.queue_time);
  seconds_field(v, "ttft", x.ttft);
  seconds_field(v, "itls", x.itls);
  v("input_len", x.input_len);
  v("input_vision_len", x.input_vision_len);
  v("output_len", x.output_len);
  v("cached_tokens", x.cached_tokens);
  v("text", x.text);
  v("error", x.error);
}

void distribution_fields(auto& v, const std::string& name, Fields<Distribution> auto& x) {
  v("mean_" + name + "_ms", x.mean);
  v("median_" + name + "_ms", x.median);
  v("std_" + name + "_ms", x.std);
  v("p50_" + name + "_ms", x.p50);
  v("p90_" + name + "_ms", x.p90);
  v("p95_" + name + "_ms", x.p95);
  v("p99_" + name + "_ms", x.p99);
  v(name + "_samples", x.n);
}

void fields(auto& v, Fields<PrefixSummary> auto& x) {
  v("request_hit_rate", x.request_hit_rate);
  distribution_fields(v, "ttft_hit", x.ttft_hit);
  distribution_fields(v, "ttft_miss", x.ttft_miss);
}

/// Members of the object that holds them (a variant, a trial), as vLLM's benchmark writes them.
void fields(auto& v, Fields<TimingSummary> auto& x) {
  v("duration", x.duration);
  v("completed", x.completed);
  v("failed", x.failed);
  v("total_input_tokens", x.total_input_tokens);
  v("total_input_vision_tokens", x.total_input_vision_tokens);
  v("total_output_tokens", x.total_output_tokens);
  v("request_throughput", x.request_throughput);
  v("request_goodput", x.request_goodput);
  v("output_throughput", x.output_throughput);
  v("decode_throughput", x.decode_throughput);
  v("bandwidth_share", x.bandwidth_share);
  v("total_token_throughput", x.total_token_throughput);
  v("preemptions", x.preemptions);
  distribution_fields(v, "ttft", x.ttft);
  distribution_fields(v, "tpot", x.tpot);
  distribution_fields(v, "itl", x.itl);
  distribution_fields(v, "e2el", x.e2el);
  v("kv_cache_hit_rate", x.kv_cache_hit_rate);
  v("comm_share", x.comm_share);
  v("energy_per_token_j", x.energy_per_token_j);
  v("prefix", x.prefix);
  v("comm_share_min", x.comm_share_min);
  v("comm_share_max", x.comm_share_max);
}

/// Four counters are also members of the trial's summary: one name in the file.
template <class V>
void fields(V& v, Fields<Trial> auto& x) {
  v("index", x.index);
  v("position", x.position);
  v("decode_tokens", x.decode_tokens);
  v("decode_seconds", x.decode_seconds);
  v("prefix_queried_tokens", x.prefix_queried_tokens);
  v("prefix_hit_tokens", x.prefix_hit_tokens);
  v("energy_j", x.energy_j);
  v("throttled", x.throttled);
  TimingSummary summary = x.summary;
  if constexpr (V::kReads) {
    fields(v, summary);
    x.duration = summary.duration;
    x.preemptions = summary.preemptions;
    x.bandwidth_share = summary.bandwidth_share;
    x.comm_share = summary.comm_share;
    x.comm_share_min = summary.comm_share_min;
    x.comm_share_max = summary.comm_share_max;
    x.summary = summary;
  } else {
    summary.duration = x.duration;
    summary.preemptions = x.preemptions;
    summary.bandwidth_share = x.bandwidth_share;
    summary.comm_share = x.comm_share;
    summary.comm_share_min = x.comm_share_min;
    summary.comm_share_max = x.comm_share_max;
    fields(v, summary);
  }
}

void fields(auto& v, Fields<KldSummary> auto& x) {
  v("mean", x.mean);
  v("mean_stderr", x.mean_stderr);
  v("median", x.median);
  v("p90", x.p90);
  v("p95", x.p95);
  v("p99", x.p99);
  v("p999", x.p999);
  v("max", x.max);
}

void fields(auto& v, Fields<DeltaPSummary> auto& x) {
  v("mean", x.mean);
  v("mean_stderr", x.mean_stderr);
  v("rms", x.rms);
  v("min", x.min);
  v("p01", x.p01);
  v("p05", x.p05);
  v("p10", x.p10);
  v("p25", x.p25);
  v("median", x.median);
  v("p75", x.p75);
  v("p90", x.p90);
  v("p95", x.p95);
  v("p99", x.p99);
  v("max", x.max);
}

void fields(auto& v, Fields<DivergenceSummary> auto& x) {
  v("n", x.n);
  v("diverged", x.diverged);
  v("mean_exact_match_tokens", x.mean_exact_match_tokens);
  v("median_first_divergence", x.median_first_divergence);
}

void fields(auto& v, Fields<PositionBucket> auto& x) {
  v("from", x.from);
  v("to", x.to);
  v("n_tokens", x.n_tokens);
  v("kld_mean", x.kld_mean);
  v("same_top1", x.same_top1);
}

void fields(auto& v, Fields<InputKindSummary> auto& x) {
  v("kind", x.kind);
  v("n_requests", x.n_requests);
  v("n_tokens", x.n_tokens);
  v("kld_mean", x.kld_mean);
  v("kld_mean_stderr", x.kld_mean_stderr);
  v("same_top1", x.same_top1);
}

void fields(auto& v, Fields<TaskSummary> auto& x) {
  v("name", x.name);
  v("n", x.n);
  v("correct", x.correct);
  v("accuracy", x.accuracy);
}

/// Requests by columns: half the size, and quicker to read.
template <class T>
struct Columns {
  T* rows;
};

void fields(auto& v, auto& x) requires requires { x.rows; }
{
  auto& rows = *x.rows;
  v.column("id", rows, &QualityRequest::id);
  v.column("task", rows, &QualityRequest::task);
  v.column("has_image", rows, &QualityRequest::has_image);
  v.column("n_tokens", rows, &QualityRequest::n_tokens);
  v.column("kld_sum", rows, &QualityRequest::kld_sum);
  v.column("top1_matches", rows, &QualityRequest::top1_matches);
  v.column("ln_p_sum", rows, &QualityRequest::ln_p_sum);
  v.column("ln_p_reference_sum", rows, &QualityRequest::ln_p_reference_sum);
  v.column("delta_p_sum", rows, &QualityRequest::delta_p_sum);
  v.column("delta_p_square_sum", rows, &QualityRequest::delta_p_square_sum);
  v.column("correct", rows, &QualityRequest::correct);
  v.column("greedy_tokens", rows, &QualityRequest::greedy_tokens);
  v.column("exact_match_tokens", rows, &QualityRequest::exact_match_tokens);
}

void fields(auto& v, Fields<Quality> auto& x) {
  v("reference", x.reference);
  v("n_tokens", x.n_tokens);
  v("kld", x.kld);
  v("ppl", x.ppl);
  v("ppl_reference", x.ppl_reference);
  v("ln_ppl_ratio", x.ln_ppl_ratio);
  v("ln_ppl_ratio_stderr", x.ln_ppl_ratio_stderr);
  v("same_top1", x.same_top1);
  v("same_top1_stderr", x.same_top1_stderr);
  v("delta_p", x.delta_p);
  v("first_divergence", x.first_divergence);
  v("by_position", x.by_position);
  v("by_input", x.by_input);
  v("tasks", x.tasks);
  Columns requests{&x.requests};
  v("requests", requests);
}

/// One value per layer is a number, one per head a list.
template <class V>
void scale_field(V& v, const std::string& key, auto& scales) {
  if constexpr (V::kReads) {
    Json json;
    v(key, json);
    if (json.is_number()) {
      scales = {json.template get<double>()};
    } else {
      v(key, scales);
    }
  } else if (scales.size() == 1) {
    v(key, scales.front());
  } else {
    v(key, scales);
  }
}

void fields(auto& v, Fields<HeadDiagnostics> auto& x) {
  v("head", x.head);
  v("input", x.input);
  v("k_amax", x.k_amax);
  v("v_amax", x.v_amax);
  v("k_saturated", x.k_saturated);
  v("v_saturated", x.v_saturated);
  v("k_subnormal", x.k_subnormal);
  v("v_subnormal", x.v_subnormal);
  v("k_flushed", x.k_flushed);
  v("v_flushed", x.v_flushed);
  v("k_snr_db", x.k_snr_db);
  v("v_snr_db", x.v_snr_db);
}

void fields(auto& v, Fields<LayerScales> auto& x) {
  v("layer", x.layer);
  scale_field(v, "k_scale", x.k_scale);
  scale_field(v, "v_scale", x.v_scale);
  v("q_scale", x.q_scale);
  v("prob_scale", x.prob_scale);
  v("k_amax", x.k_amax);
  v("v_amax", x.v_amax);
  v("k_saturated", x.k_saturated);
  v("v_saturated", x.v_saturated);
  v("k_subnormal", x.k_subnormal);
  v("v_subnormal", x.v_subnormal);
  v("k_flushed", x.k_flushed);
  v("v_flushed", x.v_flushed);
  v("k_snr_db", x.k_snr_db);
  v("v_snr_db", x.v_snr_db);
  v("k_norm_bound", x.k_norm_bound);
  v("heads", x.heads);
}

void fields(auto& v, Fields<KvScales> auto& x) {
  v("method", x.method);
  v("granularity", x.granularity);
  v("sha256", x.sha256);
  v("calibration_set_sha256", x.calibration_set_sha256);
  v("layers", x.layers);
}

void fields(auto& v, Fields<VariantResult> auto& x) {
  v("name", x.name);
  v("kv_cache_dtype", x.kv_cache_dtype);
  v("kv_scales", x.kv_scales);
  v("num_kv_blocks", x.num_kv_blocks);
  fields(v, x.summary);
  v("quality", x.quality);
  v("trials", x.trials);
  v("requests", x.requests);
}

void fields(auto& v, Fields<Comparison> auto& x) {
  v("metric", x.metric);
  v("unit", x.unit);
  v("baseline", x.baseline);
  v("candidate", x.candidate);
  v("baseline_value", x.baseline_value);
  v("candidate_value", x.candidate_value);
  v("relative", x.relative);
  v("change", x.change);
  v("ci_low", x.ci_low);
  v("ci_high", x.ci_high);
  v("ci90_low", x.ci90_low);
  v("ci90_high", x.ci90_high);
  v("p_value", x.p_value);
  v("p_adjusted", x.p_adjusted);
  v("minimum_effect", x.minimum_effect);
  v("test", x.test);
  v("n", x.n);
  v("lower_is_better", x.lower_is_better);
  v("primary", x.primary);
  v("could_decide", x.could_decide);
  v("samples_needed", x.samples_needed);
  v("verdict", x.verdict);
}

void fields(auto& v, Fields<SloResult> auto& x) {
  v("metric", x.limit.metric);
  v("stat", x.limit.stat);
  v("max", x.limit.max);
  v("min", x.limit.min);
  v("variant", x.variant);
  v("observed", x.observed);
  v("pass", x.pass);
}

void fields(auto& v, Fields<Verdict> auto& x) {
  v("status", x.status);
  v("reasons", x.reasons);
}

template <class V>
void fields(V& v, Fields<Result> auto& x) {
  v("schema_version", x.schema_version);
  v("benchmark_id", x.benchmark_id);
  v("start_time", x.start_time);
  v("end_time", x.end_time);
  v("was_cancelled", x.was_cancelled);
  v("cli_command", x.cli_command);
  v("environment", x.environment);
  if constexpr (V::kReads) {
    Json profile;
    v("profile", profile);
    x.profile_json = profile.dump();
  } else {
    v("profile", Json::parse(x.profile_json));
  }
  v("engine", x.engine);
  v("workload", x.workload);
  v("warnings", x.warnings);
  v("comparisons", x.comparisons);
  v("slo", x.slo);
  v("verdict", x.verdict);
  v("variants", x.variants);
}

}  // namespace qwenbench::report
