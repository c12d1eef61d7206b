#include "calibration/evidence.h"

#include <nlohmann/json.hpp>

#include "calibration/diagnostics.h"

namespace qwenbench::calibration {
namespace {

using Json = nlohmann::ordered_json;

Json loss_json(const Fp8Loss& loss) {
  const auto snr = loss.snr_db();
  return {{"saturated", loss.saturated},
          {"subnormal", loss.subnormal},
          {"flushed", loss.flushed},
          {"snr_db", snr ? Json(*snr) : Json()}};
}

Json diagnostics_json(const Calibration& calibration) {
  Json rows = Json::array();
  for (const HeadLoss& row : diagnose_heads(*calibration.statistics, calibration.scales.layers)) {
    rows.push_back({{"layer", row.layer},
                    {"head", row.head},
                    {"tensor", row.kind == Kind::kKey ? "k" : "v"},
                    {"input", row.input == Input::kText ? "text" : "image"},
                    {"amax", row.amax},
                    {"unit", loss_json(row.unit)},
                    {"chosen", loss_json(row.chosen)}});
  }
  return rows;
}

Json movement_json(const Movement& movement) {
  const auto settled = movement.settled();
  Json json{{"method", movement.method}, {"settled", settled ? Json(*settled) : Json()}};
  if (const auto& half = movement.half) {
    json["second_half"] = {{"from_requests", half->from_requests},
                           {"requests", half->requests},
                           {"largest_change", half->change.largest},
                           {"layer", half->change.layer}};
  }
  json["points"] = Json::array();
  for (const Movement::Point& point : movement.points) {
    json["points"].push_back({{"requests", point.requests},
                              {"tokens", point.tokens},
                              {"largest_change", point.change.largest},
                              {"layer", point.change.layer}});
  }
  return json;
}

Json probabilities_json(const AttentionProbabilities& probabilities) {
  const auto flushed = [](const FlushedProbability& loss) {
    return Json{{"flushed", loss.entries}, {"flushed_mass", loss.mass}};
  };
  Json json{{"requests", probabilities.requests()}, {"longest", probabilities.longest()}, {"prob_scale", kProbScale}};
  json["heads"] = Json::array();
  for (const HeadProbabilities& row : probabilities.heads()) {
    json["heads"].push_back({{"layer", row.layer},
                             {"head", row.head},
                             {"queries", row.queries},
                             {"entries", row.entries},
                             {"amax", row.largest},
                             {"unit", flushed(row.unit)},
                             {"chosen", flushed(row.chosen)}});
  }
  return json;
}

}  // namespace

std::string evidence_text(const Calibration& calibration, const std::vector<float>& key_bounds) {
  Json json{{"requests", calibration.requests}, {"ended_early", calibration.ended_early}};
  json["convergence"] = Json::array();
  for (const Movement& movement : calibration.movements) json["convergence"].push_back(movement_json(movement));
  json["k_norm_bounds"] = key_bounds;
  if (calibration.statistics) json["diagnostics"] = diagnostics_json(calibration);
  if (calibration.probabilities) json["attention_probabilities"] = probabilities_json(*calibration.probabilities);
  return json.dump();
}

}  // namespace qwenbench::calibration
