#include "measure/calibration_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <span>

#include "calibration/diagnostics.h"
#include "report/table.h"

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

/// "0-3, 7" of ascending layers.
std::string ranges_text(const std::vector<int>& layers) {
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < layers.size(); begin = end) {
    for (end = begin + 1; end < layers.size() && layers[end] == layers[end - 1] + 1;) ++end;
    text += text.empty() ? "" : ", ";
    text += end - begin == 1 ? fmt::format("{}", layers[begin]) : fmt::format("{}-{}", layers[begin], layers[end - 1]);
  }
  return text;
}

std::string settled_text(const calibration::Movement& movement) {
  if (!movement.half) return "too few requests to say whether the scales have settled";
  const calibration::SecondHalf& half = *movement.half;
  const std::string range = fmt::format("requests {} to {}", half.from_requests + 1, half.requests);
  if (*movement.settled()) {
    return fmt::format("settled: {} moved no scale by {} %", range, 100 * calibration::kSettledChange);
  }
  return fmt::format("not settled: {} moved a scale of layer {} by {:.2g} %", range, half.change.layer,
                     100 * half.change.largest);
}

/// The last moves of `name`, and whether they were the last.
std::string movement_text(const std::string& name, const calibration::Movement& movement) {
  constexpr std::size_t kShown = 3;
  const auto& points = movement.points;
  std::string moves;
  for (std::size_t i = std::max(points.size(), kShown + 1) - kShown; i < points.size(); ++i) {
    moves += fmt::format("{}{:.2g} % at {}", moves.empty() ? ": largest change of a scale " : ", ",
                         100 * points[i].change.largest, points[i].requests);
  }
  return fmt::format("{}{}\n  {}\n", name, moves, settled_text(movement));
}

std::string convergence_text(const Calibration& calibration, std::size_t requests_of_set) {
  std::string text;
  for (const calibration::Movement& movement : calibration.movements) {
    std::string name = movement.method;
    if (&movement != &calibration.movements.back()) name += " (where the candidates lie)";
    if (movement.method == "attention_mse") name += " (in steps of 19 %)";
    text += movement_text(name, movement);
    if (&movement != &calibration.movements.front() || !calibration.ended_early) continue;
    text += fmt::format("  the other {} requests of the set were left out\n",
                        requests_of_set - static_cast<std::size_t>(calibration.requests));
  }
  return text;
}

/// The static bound, by which K is judged for every prompt there is.
std::string bound_text(const std::vector<float>& bounds) {
  const auto worst = std::max_element(bounds.begin(), bounds.end());
  if (worst == bounds.end()) return "";
  if (*worst <= calibration::kBoundFitsUnit) {
    return fmt::format("K's norms keep |K| below {:.4g} whatever the prompt: K cannot saturate at scale 1\n", *worst);
  }
  std::vector<int> above;
  for (std::size_t layer = 0; layer < bounds.size(); ++layer) {
    if (bounds[layer] > calibration::kBoundFitsUnit) above.push_back(static_cast<int>(layer));
  }
  return report::wrapped(
      fmt::format("K's norms allow |K| up to {:.4g} (layer {}); K could saturate at scale 1 in {} of "
                  "{} layers: {}",
                  *worst, worst - bounds.begin(), above.size(), bounds.size(), ranges_text(above)),
      2);
}

/// Method bound: what is known without data.
std::string bound_need_text(const std::vector<float>& bounds) {
  const bool any = std::any_of(bounds.begin(), bounds.end(), [](float b) { return b > calibration::kBoundFitsUnit; });
  return fmt::format("{}\nOf V, and of what underflows, nothing is known without data: the scales of V stay 1\n",
                     any ? "These layers need a scale of K, if it shall never saturate."
                         : "No layer needs a scale of K: nothing can saturate.");
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
  const auto snr = [](const calibration::Fp8Loss& loss) {
    const auto db = loss.snr_db();
    return db ? fmt::format("SNR {:.1f} dB", *db) : std::string("no error");
  };
  return fmt::format("  layer {:<3} {}: {:.3g} % saturated, {:.3g} % flushed to 0, {}; chosen {}\n", row.layer,
                     name_of(row.kind), 100 * row.unit.saturated, 100 * row.unit.flushed, snr(row.unit),
                     snr(row.chosen));
}

/// "and K of layers 0-3, 7; V of layer 2" of what no line was left for.
std::string rest_text(std::span<const LayerLoss> rows) {
  std::string text = "  and";
  for (const Kind kind : {Kind::kKey, Kind::kValue}) {
    std::vector<int> layers;
    for (const LayerLoss& row : rows) {
      if (row.kind == kind) layers.push_back(row.layer);
    }
    if (layers.empty()) continue;
    std::sort(layers.begin(), layers.end());
    text += fmt::format("{} {} of layer{} {}", text.ends_with("and") ? "" : ";", name_of(kind),
                        layers.size() == 1 ? "" : "s", ranges_text(layers));
  }
  return report::wrapped(text, 4);
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
  const std::size_t shown = std::min(rows.size(), kMostLayers);
  for (std::size_t i = 0; i < shown; ++i) text += layer_text(rows[i]);
  if (rows.size() > shown) text += rest_text(std::span(rows).subspan(shown));
  return text;
}

/// What FP8 attention flushes of its probabilities.
std::string probabilities_text(const calibration::AttentionProbabilities& probabilities) {
  const std::vector<calibration::HeadProbabilities> heads = probabilities.heads();
  const calibration::HeadProbabilities all = calibration::all_heads(heads);
  const auto worst = std::max_element(heads.begin(), heads.end(),
                                      [](const auto& a, const auto& b) { return a.unit.mass < b.unit.mass; });
  if (worst == heads.end()) return "";
  return report::wrapped(
      fmt::format(
          "P~ = exp(S - max S) of FP8 attention, {} requests, up to {} keys: prob_scale 1 flushes {:.3g} % of them "
          "to 0, {:.3g} % of the probability (at most {:.3g} %, layer {} head {}); 2^-8 flushes {:.3g} %, "
          "{:.2g} % of the probability. prob_scale is 2^-8, not calibrated: the largest P~ is {:g} by construction",
          probabilities.requests(), probabilities.longest(), 100 * all.unit.entries, 100 * all.unit.mass,
          100 * worst->unit.mass, worst->layer, worst->head, 100 * all.chosen.entries, 100 * all.chosen.mass,
          all.largest),
      2);
}

}  // namespace

std::string render_calibration(const std::string& model, const Calibration& calibration,
                               const std::vector<float>& key_bounds, const workload::Workload& set) {
  const calibration::ScaleSet& scales = calibration.scales;
  const std::string head = fmt::format("{}\n{}, per {}; ", model, scales.method, scales.granularity);
  if (!calibration.statistics) {
    return head + "from the weights of K's norms alone\n" + bound_text(key_bounds) + bound_need_text(key_bounds);
  }
  const std::size_t size = set.requests.size();
  const bool first_step = calibration.movements.empty();
  std::string text =
      head + fmt::format("{}{} of {} requests ({}), {} tokens\n", first_step ? "the first step alone: " : "",
                         calibration.requests, size, set.dataset_name, scales.samples);
  const std::vector<LayerLoss> rows = calibration::diagnose_layers(*calibration.statistics, scales.layers);
  text += convergence_text(calibration, size) + bound_text(key_bounds) + table_text(calibration, rows) +
          inputs_text(calibration);
  if (calibration.probabilities) text += probabilities_text(*calibration.probabilities);
  return text + need_text(rows);
}

}  // namespace qwenbench::measure
