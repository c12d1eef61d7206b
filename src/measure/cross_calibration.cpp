#include "measure/cross_calibration.h"

#include <fmt/format.h>

#include <algorithm>

#include "calibration/diagnostics.h"

namespace qwenbench::measure {
namespace {

double most_saturated(const calibration::KvStatistics& statistics, const std::vector<model::LayerKvScales>& scales) {
  double most = 0;
  for (const calibration::LayerLoss& row : calibration::diagnose_layers(statistics, scales)) {
    most = std::max(most, row.chosen.saturated);
  }
  return most;
}

std::string number(const std::optional<double>& value) { return value ? fmt::format("{:.3g}", *value) : "-"; }

}  // namespace

std::vector<CrossRow> cross_calibration(const profile::Profile& profile, const LoadedModel& loaded,
                                        const calibration::Calibration& text, const calibration::Calibration& image,
                                        const calibration::Calibration& both,
                                        std::span<const workload::Request> quality_requests, Progress& progress) {
  constexpr auto kFp8 = profile::KvCacheDtype::kFp8E4M3;
  const std::vector<CacheSetting> settings{{"BF16", profile::KvCacheDtype::kBFloat16, {}, {}, "auto"},
                                           {"unit", kFp8, {}, {}, "auto"},
                                           {"from text", kFp8, text.scales.layers, {}, "auto"},
                                           {"from images", kFp8, image.scales.layers, {}, "auto"},
                                           {"from both", kFp8, both.scales.layers, {}, "auto"}};
  const auto samples = score_settings(profile, loaded, quality_requests, settings, progress);
  std::vector<CrossRow> rows;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const CacheSetting& setting = settings[i + 1];
    rows.push_back({setting.name, mean_kld(samples[i], RequestKind::kText), mean_kld(samples[i], RequestKind::kImage),
                    most_saturated(*text.statistics, setting.scales),
                    most_saturated(*image.statistics, setting.scales)});
  }
  return rows;
}

std::string render_cross(const std::vector<CrossRow>& rows) {
  std::string text =
      "                     KL divergence (nats/token)     largest share saturated\n"
      "scales               text prompts  image prompts    text prompts  image prompts\n";
  for (const CrossRow& row : rows) {
    text += fmt::format("{:<21}{:>12}{:>15}{:>14.3g} %{:>13.3g} %\n", row.scales, number(row.text_kld),
                        number(row.image_kld), 100 * row.text_saturated, 100 * row.image_saturated);
  }
  return text;
}

}  // namespace qwenbench::measure
