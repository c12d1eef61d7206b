// The only owner of the result file's schema (docs/result.schema.json).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "report/result.h"

namespace qwenbench::report {

inline constexpr int kSchemaVersion = 1;

/// The file's text: JSON, numbers finite (what is not finite is written as null and throws std::invalid_argument where
/// null has no meaning), raw samples on one line each. With dummy weights quality and verdict are null whatever the
/// struct says.
std::string to_json(const Result& result);

/// Reads every schema_version up to kSchemaVersion; unknown keys are ignored. Throws InputError, one line that names
/// `source`: no JSON (truncated), foreign JSON, a newer schema, a missing key, a wrong type, NaN or infinity.
Result from_json(std::string_view text, const std::string& source);

/// Atomic; throws InputError naming the path.
void write_result(const std::filesystem::path& path, const Result& result);
Result read_result(const std::filesystem::path& path);

}  // namespace qwenbench::report
