// The resolved profile of a result file as flat names: what filters, axes and comparisons read.
#pragma once

#include <map>
#include <string>

namespace qwenbench::report {

/// {"engine": {"max_num_seqs": 8}} -> {"engine.max_num_seqs", "8"}. Texts stand without quotes, other leaves and lists
/// as JSON. Throws InputError where `profile_json` is no JSON object.
std::map<std::string, std::string> flatten_profile(const std::string& profile_json);

}  // namespace qwenbench::report
