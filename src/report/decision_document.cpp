#include "report/decision_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "report/markdown_text.h"

namespace qwenbench::report {
namespace {

const std::map<std::string, std::string> kDecisions{
    {"adopt-calibrated", "Serve the FP8 cache with the calibrated scales: scale 1.0 is measurably worse."},
    {"accept-baseline", "Serve the FP8 cache with scale 1.0 as it is: calibrated scales would not gain what matters."},
    {"reject-fp8", "Keep the BF16 cache: FP8 exceeds the quality ceiling, with and without calibrated scales."},
    {"inconclusive", "No decision: these samples cannot tell. The reasons say how many more would."}};

const VariantResult* find_variant(const Result& result, bool calibrated) {
  for (const VariantResult& variant : result.variants) {
    const std::string& method = variant.kv_scales.method;
    if (variant.kv_cache_dtype == "fp8_e4m3" && (method != "unit") == calibrated) return &variant;
  }
  return nullptr;
}

std::string head_of(const Result& result) {
  const std::string status = result.verdict ? result.verdict->status : "none";
  const auto known = kDecisions.find(status);
  std::string text =
      fmt::format("# FP8 KV cache of {}: does scale 1.0 matter?\n\n", markdown_escaped(result.engine.model));
  text += fmt::format("**Verdict: {}.** {}\n", status,
                      known != kDecisions.end() ? known->second : "Quality was not measured, so nothing is decided.");
  if (result.was_cancelled) text += "\n**The run was cancelled: these are partial results.**\n";
  return text;
}

std::string question() {
  return "\n## Question\n\nA server stores K and V in FP8 (E4M3) at scale 1.0, as it does where nobody gives it "
         "scales, and warns that this may cost accuracy. Does it, for this model and these prompts; would calibrated "
         "scales help; and does the cache in FP8 cost more than it may?\n";
}

void add(std::vector<std::string>& facts, const char* name, const std::string& value) {
  if (!value.empty()) facts.push_back(fmt::format("{}: {}", name, value));
}

std::string set_up(const Result& result, const Content& content) {
  std::vector<std::string> facts = content.header;
  add(facts, "model fingerprint", result.engine.model_fingerprint);
  for (const Device& device : result.environment.devices) add(facts, "device", device.name);
  add(facts, "host", result.environment.cpu_info);
  add(facts, "build",
      result.environment.build_commit + (result.environment.git_is_dirty.value_or(false) ? " (changed)" : ""));
  add(facts, "requests, SHA-256", result.workload.requests_sha256);
  for (const VariantResult& variant : result.variants) {
    if (variant.quality) {
      add(facts, "scored",
          fmt::format("{} requests, {} tokens, teacher-forced through the cache", variant.quality->requests.size(),
                      variant.quality->n_tokens));
      break;
    }
  }
  if (const VariantResult* calibrated = find_variant(result, true)) {
    const KvScales& scales = calibrated->kv_scales;
    add(facts, "scales", fmt::format("{}, per {}, SHA-256 {}", scales.method, scales.granularity, scales.sha256));
    add(facts, "calibration set, SHA-256", scales.calibration_set_sha256);
  }
  return "\n## Set-up\n\n" + markdown_bullets(facts);
}

std::string numbers(const Content& content) {
  std::string text = "\n## Numbers\n\n" + markdown_variants(content);
  const std::string changes = markdown_changes(content);
  if (!changes.empty()) text += "\n" + changes;
  if (!content.slo.empty()) text += "\n" + markdown_bullets(content.slo);
  return text;
}

/// What FP8 at scale 1 does to K and V, from the calibration set.
std::string ranges(const Result& result) {
  const VariantResult* unit = find_variant(result, false);
  if (unit == nullptr || unit->kv_scales.layers.empty() || !unit->kv_scales.layers[0].k_saturated) return "";
  double k = 0, v = 0, k_amax = 0, v_amax = 0, bound = 0;
  for (const LayerScales& layer : unit->kv_scales.layers) {
    k = std::max(k, layer.k_saturated.value_or(0));
    v = std::max(v, layer.v_saturated.value_or(0));
    k_amax = std::max(k_amax, layer.k_amax.value_or(0));
    v_amax = std::max(v_amax, layer.v_amax.value_or(0));
    bound = std::max(bound, layer.k_norm_bound.value_or(0));
  }
  std::string text = fmt::format(
      "\n## K and V at scale 1.0\n\nFP8 holds magnitudes up to 448. Largest |K| seen: {:.4g}, largest |V|: {:.4g}; in "
      "the "
      "worst layer {:.3g} % of K and {:.3g} % of V saturate.",
      k_amax, v_amax, 100 * k, 100 * v);
  if (bound > 0) {
    text += fmt::format(" The weights of K's norms allow |K| up to {:.4g}, whatever the prompt: {}.", bound,
                        bound <= 441 ? "K cannot saturate" : "other prompts may saturate more than these did");
  }
  return text + "\n";
}

std::string list(const char* title, const std::vector<std::string>& items) {
  return items.empty() ? "" : fmt::format("\n## {}\n\n{}", title, markdown_bullets(items));
}

std::string lengths(const Result& result) {
  std::int64_t timed = 0, scored = 0;
  for (const VariantResult& variant : result.variants) {
    for (const RequestRecord& request : variant.requests) {
      timed = std::max<std::int64_t>(timed, request.input_len + request.output_len);
    }
    if (!variant.quality) continue;
    for (const PositionBucket& bucket : variant.quality->by_position) {
      if (bucket.n_tokens > 0) scored = std::max(scored, bucket.to);
    }
  }
  return fmt::format("no scored position lies beyond {}, and no timed request is longer than {} tokens", scored, timed);
}

bool saw_pictures(const Result& result) {
  return std::any_of(result.variants.begin(), result.variants.end(), [](const VariantResult& variant) {
    return variant.quality && std::any_of(variant.quality->requests.begin(), variant.quality->requests.end(),
                                          [](const QualityRequest& request) { return request.has_image; });
  });
}

std::vector<std::string> risks(const Result& result) {
  std::vector<std::string> items;
  items.push_back(lengths(result));
  if (!saw_pictures(result)) items.push_back("no request with a picture was scored: what images do is not known");
  for (const Comparison& comparison : result.comparisons) {
    if (comparison.verdict != "inconclusive" || comparison.baseline != result.comparisons.front().baseline ||
        comparison.candidate != result.comparisons.front().candidate) {
      continue;
    }
    std::string text =
        fmt::format("{} of {} against {} is not decided", comparison.metric, comparison.candidate, comparison.baseline);
    if (comparison.samples_needed) text += fmt::format("; about {} samples would do", *comparison.samples_needed);
    items.push_back(text);
  }
  for (const VariantResult& variant : result.variants) {
    if (!variant.quality || !variant.quality->kld.p999 || variant.kv_cache_dtype != "fp8_e4m3") continue;
    items.push_back(fmt::format("means hide rare tokens: the worst one in a thousand of {} is {:.3g} nats away",
                                variant.name, *variant.quality->kld.p999));
  }
  if (result.engine.device == "cpu") {
    items.push_back(
        "computed on a CPU in fp32: quality carries over to a GPU's cache of the same codes, speed does not");
  }
  items.push_back(
      "the answer is about this engine; a server that applies scales in another place, or not at all, is not covered");
  return items;
}

std::vector<std::string> triggers(const Result& result) {
  std::vector<std::string> items{
      fmt::format("another checkpoint or quantization than {} (fingerprint {:.12}...)", result.engine.model,
                  result.engine.model_fingerprint),
      "prompts of another kind: other languages, other or larger pictures, longer contexts",
      "attention that multiplies in FP8 (attention_dtype fp8): Q is rounded then, too",
      "a change in how the server reads or applies scales, or a warning of it that is not among these"};
  if (result.verdict && result.verdict->status == "adopt-calibrated") {
    items.push_back("scales are bound to the weights: fine-tuning calls for calibration anew");
  }
  if (result.verdict && result.verdict->status == "accept-baseline") {
    items.push_back("a tighter quality ceiling or minimum effect than this profile's");
  }
  return items;
}

}  // namespace

std::string render_decision(const Result& result, const std::string& result_file) {
  const Content content = content_of(result);
  std::string text = head_of(result) + question() + set_up(result, content) + numbers(content);
  text += list("Why", content.reasons) + ranges(result);
  text += list("Warnings, and what they cost here", content.warnings);
  text += list("Residual risks", risks(result)) + list("When to look again", triggers(result));
  text += fmt::format("\n## Again\n\n    {}\n\nRaw samples: {}\n\n{}\n", result.cli_command,
                      markdown_escaped(result_file), markdown_escaped(definitions()));
  return text;
}

}  // namespace qwenbench::report
