// The JSON of scale files, as programs in Python write it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace qwenbench::calibration {

/// Python's json module writes numbers that JSON does not have as NaN, Infinity and -Infinity: they are read as null
/// and as numbers beyond fp32, for scale_number() to tell. Discarded where the text is no JSON beside that.
nlohmann::ordered_json parse_scale_json(std::string_view text);

/// As fp32: NaN for null, infinite beyond fp32's range, so that check_scales() names the layer. Null where `value` is
/// no number.
std::optional<float> scale_number(const nlohmann::ordered_json& value);

}  // namespace qwenbench::calibration
