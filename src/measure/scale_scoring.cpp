#include "measure/scale_scoring.h"

#include "base/thread_pool.h"
#include "quality/quality.h"

namespace qwenbench::measure {
namespace {

quality::ScoredVariant scored(const profile::Profile& profile, const LoadedModel& loaded, const CacheSetting& setting) {
  return {setting.name, [&profile, &loaded, &setting] {
            engine::SessionOptions options;
            options.engine = profile.engine;
            options.engine.attention_dtype = setting.attention_dtype;
            options.kv_cache_dtype = setting.dtype;
            options.kv_scales = setting.scales;
            options.kv_read_scales = setting.read_scales;
            return std::make_unique<quality::SessionScorer>(std::make_unique<engine::Session>(loaded.model, options));
          }};
}

}  // namespace

std::vector<report::QualitySamples> score_settings(const profile::Profile& profile, const LoadedModel& loaded,
                                                   std::span<const workload::Request> requests,
                                                   const std::vector<CacheSetting>& settings, Progress& progress) {
  quality::ScoringOptions options;
  options.hidden_size = loaded.model->config().text.hidden_size;
  options.vocab_size = loaded.model->config().text.vocab_size;
  options.logits = [&loaded](std::span<const float> hidden, int rows) { return loaded.model->logits(hidden, rows); };
  options.compare = [&loaded](std::span<const float> reference, std::span<const float> variant,
                              std::span<const std::int32_t> targets, std::span<backend::TokenScore> out) {
    return loaded.model->compare(reference, variant, targets, out);
  };
  options.reference_name = settings.front().name;
  options.on_scored = [&progress] { progress.advance(); };
  std::vector<quality::ScoredVariant> variants;
  for (std::size_t i = 1; i < settings.size(); ++i) variants.push_back(scored(profile, loaded, settings[i]));
  ThreadPool pool(loaded.model->threads());
  quality::ScoringOutcome outcome =
      quality::score_variants(requests, scored(profile, loaded, settings.front()), variants, options, pool);
  if (outcome.cancelled) return {};
  return std::move(outcome.samples);
}

std::optional<double> mean_kld(const report::QualitySamples& samples, RequestKind kind) {
  double sum = 0;
  std::int64_t tokens = 0;
  for (const report::QualityRequest& request : samples.requests) {
    if (kind != RequestKind::kAll && request.has_image != (kind == RequestKind::kImage)) continue;
    sum += request.kld_sum;
    tokens += request.n_tokens;
  }
  if (tokens == 0) return std::nullopt;
  return sum / static_cast<double>(tokens);
}

}  // namespace qwenbench::measure
