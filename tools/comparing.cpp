#include "comparing.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "compare/pair.h"

namespace qwenbench::tools {
namespace {

/// "median_ttft_ms=5%", "kld_mean=0.002".
std::pair<std::string, double> parse_threshold(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
  char* end = nullptr;
  double number = std::strtod(value.c_str(), &end);
  const bool percent = std::string(end) == "%";
  if (percent) number /= 100;
  if (value.empty() || end == value.c_str() || !(*end == '\0' || percent) || !std::isfinite(number) || number < 0) {
    throw InputError(fmt::format("--threshold {}: expected METRIC=CHANGE, as in median_ttft_ms=5% or kld_mean=0.002",
                                 one_line(text, 80)));
  }
  return {text.substr(0, equals), number};
}

}  // namespace

std::string today() { return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))); }

std::map<std::string, double> parse_thresholds(const std::vector<std::string>& texts) {
  std::map<std::string, double> effects;
  for (const std::string& text : texts) effects.insert(parse_threshold(text));
  compare::check_minimum_effects(effects);
  return effects;
}

std::optional<report::NoiseFile> find_noise(const std::string& path) {
  if (!path.empty()) return report::read_noise_file(path);
  if (std::filesystem::exists(kNoiseFile)) return report::read_noise_file(kNoiseFile);
  return std::nullopt;
}

}  // namespace qwenbench::tools
