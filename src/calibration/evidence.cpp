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

}  // namespace

std::string evidence_text(const Calibration& calibration, const std::vector<float>& key_bounds) {
  Json json{{"requests", calibration.requests}, {"settled", calibration.settled}};
  json["convergence"] = Json::array();
  for (const Convergence& point : calibration.trace) {
    json["convergence"].push_back({{"requests", point.requests},
                                   {"tokens", point.tokens},
                                   {"largest_change", point.change},
                                   {"layer", point.layer}});
  }
  json["k_norm_bounds"] = key_bounds;
  if (calibration.statistics) json["diagnostics"] = diagnostics_json(calibration);
  return json.dump();
}

}  // namespace qwenbench::calibration
