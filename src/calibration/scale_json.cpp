#include "calibration/scale_json.h"

#include <limits>
#include <string>

namespace qwenbench::calibration {
namespace {

constexpr std::string_view kNotANumber = "NaN", kInfinity = "Infinity";

/// `text` with Python's words in JSON's. A minus before Infinity stays, before the number.
std::string without_python_words(std::string_view text) {
  std::string json;
  json.reserve(text.size());
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!in_string && text.substr(at).starts_with(kNotANumber)) {
      json += "null";
      at += kNotANumber.size() - 1;
    } else if (!in_string && text.substr(at).starts_with(kInfinity)) {
      json += "1e300";
      at += kInfinity.size() - 1;
    } else {
      if (text[at] == '"') in_string = !in_string;
      json += text[at];
      if (in_string && text[at] == '\\' && at + 1 < text.size()) json += text[++at];
    }
  }
  return json;
}

}  // namespace

nlohmann::ordered_json parse_scale_json(std::string_view text) {
  return nlohmann::ordered_json::parse(without_python_words(text), nullptr, false);
}

std::optional<float> scale_number(const nlohmann::ordered_json& value) {
  if (value.is_null()) return std::numeric_limits<float>::quiet_NaN();
  if (!value.is_number()) return std::nullopt;
  const double wide = value.get<double>();
  constexpr double kLimit = std::numeric_limits<float>::max();
  if (wide > kLimit) return std::numeric_limits<float>::infinity();
  if (wide < -kLimit) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(wide);
}

}  // namespace qwenbench::calibration
