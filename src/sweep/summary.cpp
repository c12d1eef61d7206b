#include "sweep/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "report/metrics.h"

namespace qwenbench::sweep {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 25> kMetrics{"output_throughput",
                                               "total_token_throughput",
                                               "decode_throughput",
                                               "request_throughput",
                                               "request_goodput",
                                               "median_ttft_ms",
                                               "p99_ttft_ms",
                                               "median_itl_ms",
                                               "p99_itl_ms",
                                               "median_tpot_ms",
                                               "median_e2el_ms",
                                               "p99_e2el_ms",
                                               "kld_mean",
                                               "ln_ppl_ratio",
                                               "ppl",
                                               "same_top1",
                                               "accuracy",
                                               "kv_cache_hit_rate",
                                               "request_hit_rate",
                                               "median_ttft_hit_ms",
                                               "median_ttft_miss_ms",
                                               "preemptions",
                                               "bandwidth_share",
                                               "comm_share",
                                               "failed"};

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

Json json_of(std::optional<double> value) { return value && std::isfinite(*value) ? Json(*value) : Json(nullptr); }

std::string change_text(const Effect& effect, double value) {
  if (effect.relative) return fmt::format("{:+.1f} %", 100 * value);
  if (effect.metric == "same_top1" || effect.metric.starts_with("accuracy"))
    return fmt::format("{:+.2f} pt", 100 * value);
  return fmt::format("{:+.2g}", value);
}

std::string axes_csv(const profile::Sweep& sweep, std::size_t cell) {
  std::string text;
  for (std::size_t i = 0; i < sweep.axes.size(); ++i) {
    text += "," + quoted(sweep.axes[i].values[sweep.cells[cell].choice[i]].label);
  }
  return text;
}

std::string joined(const std::vector<std::string>& texts) { return fmt::format("{}", fmt::join(texts, "; ")); }

std::string left(const std::string& text, std::size_t columns) {
  return text + std::string(columns - std::min(columns, text.size()), ' ');
}

std::string table(const profile::Sweep& sweep, const Analysis& analysis) {
  std::vector<std::string> metrics{sweep.objective.metric};
  for (const std::string& metric : sweep.pareto) {
    if (std::find(metrics.begin(), metrics.end(), metric) == metrics.end()) metrics.push_back(metric);
  }
  std::size_t width = 4;
  for (const Candidate& candidate : analysis.candidates)
    width = std::max(width, candidate_name(sweep, candidate).size());
  std::string text = left("cell, variant", width);
  for (const std::string& metric : metrics) text += fmt::format("  {:>18}", metric);
  text += "\n";
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    const Candidate& candidate = analysis.candidates[i];
    text += left(candidate_name(sweep, candidate), width);
    for (const std::string& metric : metrics) {
      text += fmt::format("  {:>18}", number_text(report::metric_value(*candidate.run->variant, metric)));
    }
    std::string marks = i == analysis.champion ? " champion" : candidate.tied ? " tied" : "";
    if (candidate.on_front) marks += " front";
    if (!candidate.violations.empty()) marks += " fails: " + candidate.violations.front();
    text += " " + marks + "\n";
  }
  return text;
}

std::string failures(const profile::Sweep& sweep, const std::vector<CellResult>& cells) {
  std::string text;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].done()) continue;
    text += fmt::format("- {}: {}\n", describe_cell(sweep, sweep.cells[i]),
                        cells[i].failure ? one_line(cells[i].failure->message) : "not run yet");
  }
  return text.empty() ? "" : "\nCells without a result\n" + text;
}

std::string effects(const Analysis& analysis) {
  if (analysis.effects.empty()) return "";
  std::string text = "\nWhat each axis brings (mean over the pairs of cells that differ in it alone, 95 % interval)\n";
  std::string axis;
  for (const Effect& effect : analysis.effects) {
    const std::string title = fmt::format("{}: {} -> {} ({} pair{})", effect.axis, effect.from, effect.to, effect.pairs,
                                          effect.pairs == 1 ? "" : "s");
    if (title != axis) text += title + "\n";
    axis = title;
    const bool clear = effect.low > 0 || effect.high < 0;
    text += fmt::format("  {:<24}{:>10}  {:>10} to {:<10}{}\n", effect.metric, change_text(effect, effect.change),
                        change_text(effect, effect.low), change_text(effect, effect.high), clear ? "" : " ~");
    while (text[text.size() - 2] == ' ') text.erase(text.size() - 2, 1);
  }
  return text;
}

std::string champion_text(const profile::Sweep& sweep, const Analysis& analysis) {
  if (!analysis.champion) {
    return fmt::format("\nNo champion: no cell holds every constraint and has {}\n", sweep.objective.metric);
  }
  const Candidate& champion = analysis.candidates[*analysis.champion];
  std::string text = fmt::format("\nChampion: {}: {} {}\n", candidate_name(sweep, champion), sweep.objective.metric,
                                 number_text(champion.objective));
  const auto tied = std::count_if(analysis.candidates.begin(), analysis.candidates.end(),
                                  [](const Candidate& candidate) { return candidate.tied; });
  if (tied > 0) text += fmt::format("{} more cannot be told from it (marked tied)\n", tied);
  return text;
}

}  // namespace

std::string summary_csv(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis) {
  std::string text = "cell";
  for (const profile::Axis& axis : sweep.axes) text += "," + quoted(axis.name);
  text += ",variant,status,message";
  for (const char* metric : kMetrics) text += fmt::format(",{}", metric);
  text += ",violations,pareto_front,tied,champion\r\n";
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].done()) continue;
    text += cells[i].id + axes_csv(sweep, i) + (cells[i].failure ? ",,failed," : ",,missing,") +
            (cells[i].failure ? quoted(cells[i].failure->message) : "") + std::string(kMetrics.size() + 4, ',') +
            "\r\n";
  }
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    const Candidate& candidate = analysis.candidates[i];
    text += sweep.cells[candidate.cell].id + axes_csv(sweep, candidate.cell) + "," +
            quoted(candidate.run->variant->name) + ",done,";
    for (const char* metric : kMetrics) {
      const auto value = report::metric_value(*candidate.run->variant, metric);
      text += value && std::isfinite(*value) ? fmt::format(",{}", *value) : ",";
    }
    text += fmt::format(",{},{},{},{}\r\n", quoted(joined(candidate.violations)), candidate.on_front, candidate.tied,
                        analysis.champion == i);
  }
  return text;
}

std::string summary_text(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis) {
  return table(sweep, analysis) + failures(sweep, cells) + effects(analysis) + champion_text(sweep, analysis);
}

std::string summary_json(const profile::Sweep& sweep, const std::vector<CellResult>& cells, const Analysis& analysis) {
  Json json{{"summary_version", 1}, {"name", sweep.name}};
  json["objective"] = {{"metric", sweep.objective.metric}, {"variant", sweep.objective.variant}};
  json["pareto"] = sweep.pareto;
  json["candidates"] = Json::array();
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    const Candidate& candidate = analysis.candidates[i];
    Json entry{{"cell", sweep.cells[candidate.cell].id},
               {"label", describe_cell(sweep, sweep.cells[candidate.cell])},
               {"variant", candidate.run->variant->name}};
    Json settings = Json::object(), values = Json::object();
    for (std::size_t a = 0; a < sweep.axes.size(); ++a) {
      settings[sweep.axes[a].name] = sweep.axes[a].values[sweep.cells[candidate.cell].choice[a]].label;
    }
    for (const char* metric : kMetrics) values[metric] = json_of(report::metric_value(*candidate.run->variant, metric));
    entry["settings"] = settings;
    entry["metrics"] = values;
    entry["violations"] = candidate.violations;
    entry["pareto_front"] = candidate.on_front;
    entry["tied"] = candidate.tied;
    entry["champion"] = analysis.champion == i;
    json["candidates"].push_back(std::move(entry));
  }
  json["failed"] = Json::array();
  for (const CellResult& cell : cells) {
    if (cell.done()) continue;
    json["failed"].push_back({{"cell", cell.id}, {"message", cell.failure ? cell.failure->message : "not run yet"}});
  }
  json["effects"] = Json::array();
  for (const Effect& effect : analysis.effects) {
    json["effects"].push_back({{"axis", effect.axis},
                               {"from", effect.from},
                               {"to", effect.to},
                               {"metric", effect.metric},
                               {"pairs", effect.pairs},
                               {"relative", effect.relative},
                               {"change", effect.change},
                               {"ci_low", effect.low},
                               {"ci_high", effect.high},
                               {"least", effect.least},
                               {"most", effect.most}});
  }
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace qwenbench::sweep
