// The table: every field of a profile, once.
#include "profile/field.h"
#include "profile/field_types.h"

namespace qwenbench::profile {
namespace {

using ProfileFields = std::vector<Field<Profile>>;

// The member that a field stands for; generic, so that one lambda serves reading (const) and writing.
#define QWENBENCH_MEMBER(member) \
  [](auto& owner) -> auto& { return owner.member; }

void add_engine_fields(ProfileFields& fields) {
  const std::vector<std::pair<std::string, Device>> devices{
      {"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}};
  const std::vector<std::pair<std::string, Switch>> switches{
      {"auto", Switch::kAuto}, {"on", Switch::kOn}, {"off", Switch::kOff}};
  const auto add = [&](Field<Profile> field) { fields.push_back(std::move(field)); };
  add(choice_field<Profile>("engine.device", QWENBENCH_MEMBER(engine.device), devices,
                            "where the model runs; auto: a GPU where one answers"));
  add(integer_field<Profile>("engine.tensor_parallel_size", QWENBENCH_MEMBER(engine.tensor_parallel_size), 1, 64,
                             "ranks that share every layer"));
  add(number_field<Profile>("engine.gpu_memory_utilization", QWENBENCH_MEMBER(engine.gpu_memory_utilization), 0, 1,
                            true, "share of a device's memory that may be used"));
  add(integer_field<Profile>("engine.max_model_len", QWENBENCH_MEMBER(engine.max_model_len), 0, 1 << 24,
                             "tokens of the longest sequence; 0: what the model allows"));
  add(integer_field<Profile>("engine.max_num_seqs", QWENBENCH_MEMBER(engine.max_num_seqs), 1, 65536,
                             "sequences of one step"));
  add(integer_field<Profile>("engine.max_num_batched_tokens", QWENBENCH_MEMBER(engine.max_num_batched_tokens), 1,
                             1 << 20, "tokens of one step"));
  add(bool_field<Profile>("engine.enable_chunked_prefill", QWENBENCH_MEMBER(engine.enable_chunked_prefill),
                          "long prompts take several steps, beside decoding sequences"));
  add(bool_field<Profile>("engine.enable_prefix_caching", QWENBENCH_MEMBER(engine.enable_prefix_caching),
                          "KV blocks of equal beginnings are shared"));
  add(map_field<Profile>("engine.limit_mm_per_prompt", QWENBENCH_MEMBER(engine.limit_mm_per_prompt), 0, 65536, true,
                         "most pictures of one prompt: {\"image\": n}"));
  add(integer_field<Profile>("engine.block_size", QWENBENCH_MEMBER(engine.block_size), 1, 4096,
                             "tokens of one KV block"));
  add(bool_field<Profile>("engine.cuda_graphs", QWENBENCH_MEMBER(engine.cuda_graphs), "decode steps are captured"));
  add(word_field<Profile>("engine.attention_dtype", QWENBENCH_MEMBER(engine.attention_dtype), {"auto", "fp8"},
                          "auto: K and V are converted to 16 bit before the product"));
  add(word_field<Profile>("engine.all_reduce", QWENBENCH_MEMBER(engine.all_reduce), {"auto", "p2p", "nccl", "host"},
                          "auto: p2p where peer access works, else nccl; host: through main memory, slow"));
  add(choice_field<Profile>("engine.pin_memory", QWENBENCH_MEMBER(engine.pin_memory), switches,
                            "page-locked host memory; auto: off under WSL"));
  add(integer_field<Profile>("engine.cpu_threads", QWENBENCH_MEMBER(engine.cpu_threads), 0, 4096,
                             "CPU threads over all ranks; 0: every available core"));
  add(number_field<Profile>("engine.cpu_kv_cache_gib", QWENBENCH_MEMBER(engine.cpu_kv_cache_gib), 0, 1 << 20, true,
                            "GiB of KV cache of a CPU run, per rank"));
}

void add_calibration_fields(ProfileFields& fields) {
  const auto add = [&](Field<Profile> field) { fields.push_back(std::move(field)); };
  add(text_field<Profile>("calibration.dataset", QWENBENCH_MEMBER(calibration.dataset), false,
                          "a name in datasets/, or a JSONL file"));
  add(word_field<Profile>("calibration.method", QWENBENCH_MEMBER(calibration.method),
                          {"absmax", "percentile", "mse", "attention_mse", "bound", "vllm"},
                          "how a scale is estimated"));
  add(word_field<Profile>("calibration.granularity", QWENBENCH_MEMBER(calibration.granularity), {"tensor", "head"},
                          "one scale a layer, or one a KV head"));
  add(number_field<Profile>("calibration.percentile", QWENBENCH_MEMBER(calibration.percentile), 0, 100, true,
                            "of the magnitudes, which method percentile maps to 448"));
  add(word_field<Profile>("calibration.round", QWENBENCH_MEMBER(calibration.round), {"none", "pow2"},
                          "pow2: scales are rounded up to powers of two"));
  add(integer_field<Profile>("calibration.num_samples", QWENBENCH_MEMBER(calibration.num_samples), 1, 1000000,
                             "requests, spread evenly over the dataset"));
  add(integer_field<Profile>("calibration.settle_after", QWENBENCH_MEMBER(calibration.settle_after), 0, 1000000,
                             "requests after which scales that have settled end the calibration; 0: never"));
  add(integer_field<Profile>("calibration.max_tokens", QWENBENCH_MEMBER(calibration.max_tokens), 0, 1 << 20,
                             "tokens to generate after a conversation without an answer"));
}

/// requests per second, or "inf".
Field<Profile> request_rate_field() {
  Field<Profile> field{"workload.request_rate",
                       "requests per second; \"inf\": max_concurrency alone admits them",
                       "a number above 0, or \"inf\"",
                       {},
                       {}};
  field.read = [](Profile& profile, const Json& json) {
    if (json.is_string() && json.get_ref<const std::string&>() == "inf") {
      profile.workload.request_rate = kInfinity;
      return true;
    }
    if (!json.is_number() || !(json.get<double>() > 0)) return false;
    profile.workload.request_rate = json.get<double>();
    return true;
  };
  field.write = [](const Profile& profile) {
    return profile.workload.request_rate == kInfinity ? Json("inf") : Json(profile.workload.request_rate);
  };
  return field;
}

/// [[height, width], ...] in pixels.
Field<Profile> image_sizes_field() {
  Field<Profile> field{"workload.image_sizes",
                       "random workload: pictures, taken in turn",
                       "a list of [height, width], each from 1 to 16384 pixels",
                       {},
                       {}};
  field.read = [](Profile& profile, const Json& json) {
    if (!json.is_array()) return false;
    std::vector<std::array<int, 2>> sizes;
    for (const auto& pair : json) {
      std::int64_t height = 0, width = 0;
      if (!pair.is_array() || pair.size() != 2) return false;
      if (!read_integer(pair[0], 1, 16384, height) || !read_integer(pair[1], 1, 16384, width)) return false;
      sizes.push_back({static_cast<int>(height), static_cast<int>(width)});
    }
    profile.workload.random.image_sizes = std::move(sizes);
    return true;
  };
  field.write = [](const Profile& profile) {
    Json json = Json::array();
    for (const auto& [height, width] : profile.workload.random.image_sizes) json.push_back({height, width});
    return json;
  };
  return field;
}

void add_workload_fields(ProfileFields& fields) {
  const auto add = [&](Field<Profile> field) { fields.push_back(std::move(field)); };
  add(text_field<Profile>("workload.dataset", QWENBENCH_MEMBER(workload.dataset), false,
                          "a name in datasets/, a JSONL file, or \"random\""));
  add(range_field<Profile>("workload.input_len", QWENBENCH_MEMBER(workload.random.input_len), 1, 1 << 24,
                           "random workload: text tokens of a prompt"));
  add(range_field<Profile>("workload.output_len", QWENBENCH_MEMBER(workload.random.output_len), 1, 1 << 24,
                           "random workload: tokens to generate"));
  add(image_sizes_field());
  add(number_field<Profile>("workload.image_share", QWENBENCH_MEMBER(workload.random.image_share), 0, 1, false,
                            "random workload: share of the requests that carry one picture"));
  add(integer_field<Profile>("workload.num_prompts", QWENBENCH_MEMBER(workload.num_prompts), 1, 1000000,
                             "requests of one trial; a smaller dataset is repeated"));
  add(integer_field<Profile>("workload.max_tokens", QWENBENCH_MEMBER(workload.max_tokens), 1, 1 << 24,
                             "tokens to generate; a request's own max_tokens can only lower it"));
  add(bool_field<Profile>("workload.ignore_eos", QWENBENCH_MEMBER(workload.ignore_eos),
                          "generate max_tokens whatever the model says"));
  add(number_field<Profile>("workload.temperature", QWENBENCH_MEMBER(workload.temperature), 0, 100, false,
                            "0: greedy"));
  add(number_field<Profile>("workload.top_p", QWENBENCH_MEMBER(workload.top_p), 0, 1, true, "nucleus; 1: off"));
  add(integer_field<Profile>("workload.top_k", QWENBENCH_MEMBER(workload.top_k), 0, 1 << 24, "0: off"));
  add(request_rate_field());
  add(integer_field<Profile>("workload.max_concurrency", QWENBENCH_MEMBER(workload.max_concurrency), 1, 1000000,
                             "requests under way at the same time"));
  add(number_field<Profile>("workload.burstiness", QWENBENCH_MEMBER(workload.burstiness), 0, 1e6, true,
                            "shape of the gamma distribution of arrival gaps; 1: Poisson"));
  add(integer_field<Profile>("workload.shared_prefix.groups", QWENBENCH_MEMBER(workload.shared_prefix.groups), 0,
                             1000000, "groups of requests with a common beginning; 0: none"));
  add(integer_field<Profile>("workload.shared_prefix.tokens", QWENBENCH_MEMBER(workload.shared_prefix.tokens), 0,
                             1 << 24, "length of that beginning"));
  add(integer_field<Profile>("workload.trials", QWENBENCH_MEMBER(workload.trials), 1, 10000, "trials per variant"));
  add(integer_field<Profile>("workload.warmup_prompts", QWENBENCH_MEMBER(workload.warmup_prompts), 0, 1000000,
                             "requests before the first trial, not measured"));
  add(integer_field<Profile>("workload.seed", QWENBENCH_MEMBER(workload.seed), 0,
                             std::numeric_limits<std::int64_t>::max(), "of everything random"));
}

void add_quality_fields(ProfileFields& fields) {
  const auto add = [&](Field<Profile> field) { fields.push_back(std::move(field)); };
  add(text_field<Profile>("quality.dataset", QWENBENCH_MEMBER(quality.dataset), true,
                          "a name in datasets/, or a JSONL file; \"\": quality is not measured"));
  add(integer_field<Profile>("quality.num_samples", QWENBENCH_MEMBER(quality.num_samples), 0, 1000000,
                             "requests, spread evenly over the dataset; 0: all"));
  add(map_field<Profile>("quality.ceiling", QWENBENCH_MEMBER(quality.ceiling), 0, kInfinity, false,
                         "worst acceptable value of a metric"));
  add(map_field<Profile>("quality.minimum_effect", QWENBENCH_MEMBER(quality.minimum_effect), 0, kInfinity, false,
                         "smallest difference that matters, by metric"));
}

ProfileFields make_profile_fields() {
  ProfileFields fields;
  fields.push_back(
      text_field<Profile>("name", QWENBENCH_MEMBER(name), false, "stands in reports; default: the file's"));
  fields.push_back(text_field<Profile>("model", QWENBENCH_MEMBER(model), false, "a directory, or a hub id"));
  fields.push_back(text_field<Profile>("model_config", QWENBENCH_MEMBER(model_config), true,
                                       "a directory whose config.json stands in for a model that is not here "
                                       "(dry runs and load_format dummy)"));
  fields.push_back(word_field<Profile>("load_format", QWENBENCH_MEMBER(load_format), {"auto", "dummy"},
                                       "dummy: seeded random weights of the config's shapes"));
  add_engine_fields(fields);
  add_calibration_fields(fields);
  add_workload_fields(fields);
  add_quality_fields(fields);
  return fields;
}

/// null, or a number: an absent limit.
Field<Slo> limit_field(std::string path, std::optional<double> Slo::*member, std::string doc) {
  Field<Slo> field{std::move(path), std::move(doc), "a number", {}, {}};
  field.read = [member](Slo& slo, const Json& json) {
    if (!json.is_number()) return false;
    slo.*member = json.get<double>();
    return true;
  };
  field.write = [member](const Slo& slo) { return slo.*member ? Json(*(slo.*member)) : Json(); };
  return field;
}

}  // namespace

const std::vector<Field<Profile>>& profile_fields() {
  static const ProfileFields fields = make_profile_fields();
  return fields;
}

const std::vector<Field<Variant>>& variant_fields() {
  static const std::vector<Field<Variant>> fields = [] {
    const std::vector<std::pair<std::string, KvCacheDtype>> dtypes{{"float32", KvCacheDtype::kFloat32},
                                                                   {"bfloat16", KvCacheDtype::kBFloat16},
                                                                   {"fp8_e4m3", KvCacheDtype::kFp8E4M3},
                                                                   {"auto", KvCacheDtype::kBFloat16},
                                                                   {"fp8", KvCacheDtype::kFp8E4M3}};
    return std::vector<Field<Variant>>{
        choice_field<Variant>("kv_cache_dtype", QWENBENCH_MEMBER(kv_cache_dtype), dtypes,
                              "what the KV cache stores; auto and fp8 as in vLLM (bfloat16 and fp8_e4m3)"),
        text_field<Variant>("kv_scales", QWENBENCH_MEMBER(kv_scales), false,
                            "unit | calibrate | checkpoint | a scale file's path")};
  }();
  return fields;
}

const std::vector<Field<Slo>>& slo_fields() {
  static const std::vector<Field<Slo>> fields{
      text_field<Slo>("metric", QWENBENCH_MEMBER(metric), false, "ttft_ms, output_throughput, ..."),
      word_field<Slo>("stat", QWENBENCH_MEMBER(stat), {"", "mean", "median", "std", "p50", "p90", "p95", "p99"},
                      "of a latency metric"),
      limit_field("min", &Slo::min, "smallest value that passes"),
      limit_field("max", &Slo::max, "largest value that passes")};
  return fields;
}

#undef QWENBENCH_MEMBER

}  // namespace qwenbench::profile
