#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "profile/apply.h"
#include "profile/document.h"

namespace qwenbench::profile {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxFileSize = 4 << 20;
constexpr int kMaxDepth = 32;

/// The library's message from "at line" on.
std::string json_error(const Json::exception& error) {
  const std::string text = error.what();
  const auto at = text.find("at line");
  return one_line(at == std::string::npos ? text.substr(text.rfind(']') + 1) : text.substr(at), 200);
}

/// A SAX callback that refuses a key given twice in one object, and nesting beyond what any profile has.
class Strict {
 public:
  explicit Strict(std::string source) : source_(std::move(source)) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) throw InputError(fmt::format("{}: nested too deeply", source_));
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end) keys_.pop_back();
    if (event == Json::parse_event_t::key && !keys_.back().insert(value.get<std::string>()).second) {
      throw InputError(fmt::format("{}: the key {} stands twice in one object", source_, one_line(value.dump(), 80)));
    }
    return true;
  }

 private:
  std::string source_;
  std::vector<std::set<std::string>> keys_;
};

Json parse_json(const std::string& text, const std::string& source) {
  Strict strict(source);
  try {
    return Json::parse(
        text, [&](int depth, Json::parse_event_t event, Json& value) { return strict(depth, event, value); },
        /*allow_exceptions=*/true, /*ignore_comments=*/true);
  } catch (const Json::exception& error) {
    throw InputError(fmt::format("{}: not valid JSON {}", source, json_error(error)));
  }
}

std::vector<std::string> profile_names() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(home() / "profiles", error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// A name is looked up beside the profile that extends it, then in profiles/; a path stands as it is, or below home().
fs::path find_profile(const std::string& name, const fs::path& folder) {
  std::error_code error;
  const bool is_path = name.find('/') != std::string::npos || name.ends_with(".json");
  for (const fs::path& base : {folder, home() / "profiles"}) {
    const fs::path path = base / (is_path ? name : name + ".json");
    if (fs::exists(path, error)) return path;
  }
  if (is_path) {
    const fs::path path = resolve_path(name);
    if (fs::exists(path, error)) return path;
    throw InputError(fmt::format("{}: no such profile file", one_line(name)));
  }
  const auto names = profile_names();
  const std::string nearest = nearest_name(name, names);
  throw InputError(fmt::format("no profile {} in {}{}", one_line(name), (home() / "profiles").string(),
                               !nearest.empty() ? fmt::format("; did you mean {}?", nearest)
                               : names.empty()  ? std::string("; set QWENBENCH_HOME to the folder that holds profiles/")
                                                : fmt::format("; there are {}", fmt::join(names, ", "))));
}

std::string read_profile(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) throw InputError(fmt::format("{}: not a file", path.string()));
  if (fs::file_size(path, error) > kMaxFileSize) {
    throw InputError(fmt::format("{}: too large for a profile", path.string()));
  }
  return read_file(path);
}

/// Applies what `json` extends, then `json`. `chain` holds the files being read, outermost first.
void apply_with_bases(Profile& profile, const Json& json, const std::string& source, const fs::path& folder,
                      std::vector<std::string>& chain) {
  if (json.is_object() && json.contains("extends")) {
    const Json& extends = json["extends"];
    if (!extends.is_string()) throw InputError(fmt::format("{}: extends must be the name of a profile", source));
    const fs::path path = fs::weakly_canonical(find_profile(extends.get<std::string>(), folder));
    const bool loop = std::find(chain.begin(), chain.end(), path.string()) != chain.end();
    chain.push_back(path.string());
    if (loop) throw InputError(fmt::format("{}: extends runs in a circle: {}", source, fmt::join(chain, " -> ")));
    apply_with_bases(profile, parse_json(read_profile(path), path.string()), path.string(), path.parent_path(), chain);
    profile.name.clear();
    chain.pop_back();
  }
  apply(profile, json, source);
}

/// "engine.max_num_seqs=8" as {"engine": {"max_num_seqs": 8}}; what is no JSON is a text.
Json override_json(const std::string& text, const std::string& source) {
  const auto equals = text.find('=');
  const std::string path = text.substr(0, equals);
  if (equals == std::string::npos || path.empty()) {
    throw InputError(fmt::format("{}: expected KEY=VALUE, as in engine.max_num_seqs=8", source));
  }
  if (path == "extends") throw InputError(fmt::format("{}: extends stands in files only; use --profile", source));
  const std::string value = text.substr(equals + 1);
  Json json = Json::accept(value) ? parse_json(value, source) : Json(value);
  std::size_t end = path.size();
  for (int depth = 0; end != std::string::npos; ++depth) {
    const std::size_t dot = end == 0 ? std::string::npos : path.rfind('.', end - 1);
    const std::size_t begin = dot == std::string::npos ? 0 : dot + 1;
    Json outer = Json::object();
    outer[path.substr(begin, end - begin)] = std::move(json);
    json = std::move(outer);
    end = dot;
    if (depth > kMaxDepth) throw InputError(fmt::format("{}: nested too deeply", source));
  }
  return json;
}

std::vector<Variant> standard_variants() {
  return {{"reference", KvCacheDtype::kBFloat16, "unit"},
          {"baseline", KvCacheDtype::kFp8E4M3, "unit"},
          {"calibrated", KvCacheDtype::kFp8E4M3, "calibrate"}};
}

Profile build(const Json& json, const std::string& source, const fs::path& folder, const std::string& default_name,
              std::vector<std::string> chain, const std::vector<std::string>& overrides) {
  Profile profile;
  apply_with_bases(profile, json, source, folder, chain);
  if (profile.name.empty()) profile.name = default_name;
  if (profile.variants.empty()) profile.variants = standard_variants();
  for (const auto& text : overrides) {
    const std::string where = "--set " + one_line(text, 120);
    apply(profile, override_json(text, where), where);
  }
  validate(profile, source);
  return profile;
}

/// Writes value at the dotted path.
void put(Json& json, const std::string& path, Json value) {
  Json* node = &json;
  std::size_t begin = 0;
  for (auto dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    node = &(*node)[path.substr(begin, dot - begin)];
    begin = dot + 1;
  }
  (*node)[path.substr(begin)] = std::move(value);
}

template <class Owner>
Json write_fields(const Owner& owner, const std::vector<Field<Owner>>& fields) {
  Json json = Json::object();
  for (const auto& field : fields) {
    if (Json value = field.write(owner); !value.is_null()) put(json, field.path, std::move(value));
  }
  return json;
}

}  // namespace

Document read_document(const std::string& name) {
  const fs::path path = find_profile(name, {});
  return {parse_json(read_profile(path), path.string()), path.string(), path.stem().string(), path.parent_path(),
          fs::weakly_canonical(path).string()};
}

Document parse_document(const std::string& text, const std::string& source, const fs::path& folder) {
  return {parse_json(text, source), source, "profile", folder, ""};
}

Profile build_profile(const Document& document, const std::vector<std::string>& overrides) {
  std::vector<std::string> chain;
  if (!document.canonical.empty()) chain.push_back(document.canonical);
  return build(document.json, document.source, document.folder, document.name, std::move(chain), overrides);
}

Profile load_profile(const std::string& name, const std::vector<std::string>& overrides) {
  return build_profile(read_document(name), overrides);
}

Profile parse_profile(const std::string& text, const std::string& source, const fs::path& folder,
                      const std::vector<std::string>& overrides) {
  return build_profile(parse_document(text, source, folder), overrides);
}

std::string to_json(const Profile& profile) {
  Json json = write_fields(profile, profile_fields());
  Json variants = Json::object();
  for (const auto& variant : profile.variants) variants[variant.name] = write_fields(variant, variant_fields());
  json["variants"] = std::move(variants);
  json["slo"] = Json::array();
  for (const auto& limit : profile.slo) json["slo"].push_back(write_fields(limit, slo_fields()));
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string_view name_of(KvCacheDtype dtype) {
  switch (dtype) {
    case KvCacheDtype::kFloat32:
      return "float32";
    case KvCacheDtype::kBFloat16:
      return "bfloat16";
    case KvCacheDtype::kFp8E4M3:
      return "fp8_e4m3";
  }
  return "";
}

}  // namespace qwenbench::profile
