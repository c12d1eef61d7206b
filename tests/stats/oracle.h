// What SciPy and NumPy say (scripts/fixtures/make_stats_fixtures.py).
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

inline const nlohmann::json& oracle() {
  static const nlohmann::json data = nlohmann::json::parse(std::ifstream("stats/data/oracle.json"));
  return data;
}

inline std::vector<double> numbers(const nlohmann::json& array) { return array.get<std::vector<double>>(); }
