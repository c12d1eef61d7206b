#include "report/profile_view.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace qwenbench::report {
namespace {

using Json = nlohmann::ordered_json;

void flatten(const Json& json, const std::string& path, std::map<std::string, std::string>& out) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) flatten(value, path.empty() ? key : path + "." + key, out);
    return;
  }
  out[path] = json.is_string() ? json.get<std::string>() : json.dump();
}

}  // namespace

std::map<std::string, std::string> flatten_profile(const std::string& profile_json) {
  const Json json = Json::parse(profile_json, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw InputError("the profile of a result file is no JSON object");
  std::map<std::string, std::string> flat;
  flatten(json, "", flat);
  return flat;
}

}  // namespace qwenbench::report
