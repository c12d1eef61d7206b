#include "measure/calibration_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "calibration/diagnostics.h"

namespace qwenbench::measure {
namespace {

using calibration::Calibration;
using calibration::Input;
using calibration::Kind;
using calibration::LayerLoss;

constexpr std::size_t kMostLayers = 10;

struct Spread {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  std::string text() const {
    if (high == 0) return "-";
    return low == high ? fmt::format("{:.3g}", low) : fmt::format("{:.3g} - {:.3g}", low, high);
  }
};

const char* name_of(Kind kind) { return kind == Kind::kKey ? "K" : "V"; }

std::string convergence_text(const Calibration& calibration) {
  if (calibration.trace.empty()) return "";
  std::string text = "largest change of a scale after ";
  const std::size_t shown = std::min<std::size_t>(calibration.trace.size() - 1, 3);
  if (shown == 0) return "";
  for (std::size_t i = calibration.trace.size() - shown; i < calibration.trace.size(); ++i) {
    const calibration::Convergence& point = calibration.trace[i];
    text += fmt::format("{} requests {:.2g} %{}", point.requests, 100 * point.change,
                        i + 1 < calibration.trace.size() ? ", " : "\n");
  }
  if (calibration.settled) text += "settled: the second half of them moved no scale by 1 %; the rest was left out\n";
  return text;
}

/// The static bound, by which K is judged for every prompt there is.
std::string bound_text(const std::vector<float>& bounds) {
  const auto worst = std::max_element(bounds.begin(), bounds.end());
  if (worst == bounds.end()) return "";
  if (*worst <= calibration::kBoundFitsUnit) {
    return fmt::format("K's norms keep |K| below {:.4g} whatever the prompt: K cannot saturate at scale 1\n", *worst);
  }
  const auto above =
      std::count_if(bounds.begin(), bounds.end(), [](float b) { return b > calibration::kBoundFitsUnit; });
  return fmt::format("K's norms allow |K| up to {:.4g} (layer {}); {} of {} layers could saturate at scale 1\n", *worst,
                     worst - bounds.begin(), above, bounds.size());
}

std::string table_text(const Calibration& calibration, const std::vector<LayerLoss>& rows) {
  std::string text = "    scale                  largest magnitude      SNR at 1 (dB)     SNR chosen (dB)\n";
  for (const Kind kind : {Kind::kKey, Kind::kValue}) {
    Spread scales, amax, unit, chosen;
    for (const model::LayerKvScales& layer : calibration.scales.layers) {
      for (const float scale : kind == Kind::kKey ? layer.k : layer.v) scales.add(scale);
    }
    for (const LayerLoss& row : rows) {
      if (row.kind != kind) continue;
      amax.add(row.amax);
      if (const auto snr = row.unit.snr_db()) unit.add(std::max(0.0, *snr));
      if (const auto snr = row.chosen.snr_db()) chosen.add(std::max(0.0, *snr));
    }
    text += fmt::format("{:<4}{:<23}{:<23}{:<18}{}\n", name_of(kind), scales.text(), amax.text(), unit.text(),
                        chosen.text());
  }
  return text;
}

/// Text and image tokens apart: the largest magnitudes, and the largest share of a head that saturates.
std::string inputs_text(const Calibration& calibration) {
  std::string text;
  for (const Input input : calibration::kInputs) {
    float k = 0, v = 0;
    double unit = 0, chosen = 0;
    for (const calibration::HeadLoss& row :
         calibration::diagnose_heads(*calibration.statistics, calibration.scales.layers)) {
      if (row.input != input) continue;
      float& amax = row.kind == Kind::kKey ? k : v;
      amax = std::max(amax, row.amax);
      unit = std::max(unit, row.unit.saturated);
      chosen = std::max(chosen, row.chosen.saturated);
    }
    const char* name = input == Input::kText ? "text" : "image";
    if (k == 0 && v == 0) {
      text += fmt::format("{} tokens: none seen\n", name);
    } else {
      text += fmt::format(
          "{} tokens: |K| to {:.4g}, |V| to {:.4g}; in the worst head {:.3g} % saturated at 1, {:.3g} % "
          "chosen\n",
          name, k, v, 100 * unit, 100 * chosen);
    }
  }
  return text;
}

std::string layer_text(const LayerLoss& row) {
  const auto snr = [](const calibration::Fp8Loss& loss) { return loss.snr_db().value_or(0); };
  return fmt::format("  layer {:<3} {}: {:.3g} % saturated, {:.3g} % flushed to 0, SNR {:.1f} dB; chosen {:.1f} dB\n",
                     row.layer, name_of(row.kind), 100 * row.unit.saturated, 100 * row.unit.flushed, snr(row.unit),
                     snr(row.chosen));
}

std::string need_text(std::vector<LayerLoss> rows) {
  std::erase_if(rows, [](const LayerLoss& row) { return row.gain_db() <= calibration::kNeedsScaleDb; });
  if (rows.empty()) {
    return "No layer needs a scale: at 1.0 nothing is lost that the chosen scales would keep.\n";
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const LayerLoss& a, const LayerLoss& b) { return a.gain_db() > b.gain_db(); });
  std::string text = fmt::format("{} need{} a scale; at 1.0:\n",
                                 rows.size() == 1 ? "One tensor" : fmt::format("{} tensors", rows.size()),
                                 rows.size() == 1 ? "s" : "");
  for (std::size_t i = 0; i < std::min(rows.size(), kMostLayers); ++i) text += layer_text(rows[i]);
  if (rows.size() > kMostLayers) text += fmt::format("  and {} more: see the file\n", rows.size() - kMostLayers);
  return text;
}

}  // namespace

std::string render_calibration(const std::string& model, const Calibration& calibration,
                               const std::vector<float>& key_bounds, std::size_t requests_of_set) {
  const calibration::ScaleSet& scales = calibration.scales;
  std::string text = fmt::format("{}\n{}, per {}", model, scales.method, scales.granularity);
  if (calibration.statistics) {
    text += fmt::format("; {} of {} requests, {} tokens", calibration.requests, requests_of_set, scales.samples);
  }
  text += "\n" + convergence_text(calibration) + bound_text(key_bounds);
  if (calibration.statistics) {
    const std::vector<LayerLoss> rows = calibration::diagnose_layers(*calibration.statistics, scales.layers);
    text += table_text(calibration, rows) + inputs_text(calibration) + need_text(rows);
  }
  return text;
}

}  // namespace qwenbench::measure
