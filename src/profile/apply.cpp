#include "profile/apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.h"

namespace qwenbench::profile {
namespace {

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

/// "engine.max_num_seqs" for "engine.max_num_seq" and for "max_num_seqs": a key beside it that is spelled alike, else
/// one elsewhere of the same name, else the nearest of all.
std::string nearest_path(const std::string& path, const std::vector<std::string>& known) {
  const std::string parent = path.substr(0, path.size() - last_part(path).size());
  for (const auto& candidate : known) {
    if (last_part(candidate) == last_part(path)) return candidate;
  }
  std::vector<std::string> siblings;
  for (const auto& candidate : known) {
    if (candidate.starts_with(parent))
      siblings.push_back(last_part(candidate.substr(0, candidate.find('.', parent.size()))));
  }
  const std::string sibling = nearest_name(last_part(path), siblings);
  if (!sibling.empty() && edit_distance(sibling, last_part(path)) <= 3) return parent + sibling;
  return nearest_name(path, known);
}

[[noreturn]] void unknown_key(const std::string& source, const std::string& path,
                              const std::vector<std::string>& known) {
  const std::string nearest = nearest_path(path, known);
  throw InputError(fmt::format("{}: unknown key {}{}", source, one_line(path),
                               nearest.empty() ? std::string() : fmt::format("; did you mean {}?", nearest)));
}

std::string shown(const Json& json) { return one_line(json.dump(-1, ' ', false, Json::error_handler_t::replace), 60); }

/// Walks the object `json` at `prefix` ("" or "engine."): leaves are read, groups are entered.
template <class Owner>
void apply_fields(Owner& owner, const std::vector<Field<Owner>>& fields, const Json& json, const std::string& prefix,
                  const std::string& source, const std::string& where, const std::vector<std::string>& known) {
  for (const auto& [key, value] : json.items()) {
    const std::string path = prefix + key;
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.path == path; });
    if (field != fields.end()) {
      if (!field->read(owner, value)) {
        throw InputError(
            fmt::format("{}: {}{} must be {}, not {}", source, where, path, field->expected, shown(value)));
      }
      continue;
    }
    const bool is_group =
        std::any_of(fields.begin(), fields.end(), [&](const auto& f) { return f.path.starts_with(path + "."); });
    if (!is_group) unknown_key(source, where + path, known);
    if (!value.is_object())
      throw InputError(fmt::format("{}: {}{} must be an object, not {}", source, where, path, shown(value)));
    apply_fields(owner, fields, value, path + ".", source, where, known);
  }
}

template <class Owner>
std::vector<std::string> paths_of(const std::vector<Field<Owner>>& fields, const std::string& where) {
  std::vector<std::string> paths;
  for (const auto& field : fields) paths.push_back(where + field.path);
  return paths;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
}

/// {"name": {fields}, ...}: known variants change, new ones are added at the end, null removes one.
void apply_variants(std::vector<Variant>& variants, const Json& json, const std::string& source) {
  if (!json.is_object()) {
    throw InputError(fmt::format("{}: variants must be an object of named variants, not {}", source, shown(json)));
  }
  for (const auto& item : json.items()) {
    const std::string& name = item.key();  // no structured binding: the lambda below captures it
    const Json& value = item.value();
    if (!is_plain_name(name)) {
      throw InputError(fmt::format("{}: variants: the name \"{}\" must consist of letters, digits, _ and -", source,
                                   one_line(name, 60)));
    }
    auto variant = std::find_if(variants.begin(), variants.end(), [&](const auto& v) { return v.name == name; });
    if (value.is_null()) {
      if (variant != variants.end()) variants.erase(variant);
      continue;
    }
    const std::string where = "variants." + name + ".";
    if (!value.is_object())
      throw InputError(fmt::format("{}: variants.{} must be an object, not {}", source, name, shown(value)));
    if (variant == variants.end()) variant = variants.insert(variants.end(), Variant{.name = name});
    apply_fields(*variant, variant_fields(), value, "", source, where, paths_of(variant_fields(), where));
  }
}

void apply_slo(std::vector<Slo>& slo, const Json& json, const std::string& source) {
  if (!json.is_array()) throw InputError(fmt::format("{}: slo must be a list, not {}", source, shown(json)));
  std::vector<Slo> limits;
  for (const auto& value : json) {
    const std::string name = fmt::format("slo[{}]", limits.size());
    if (!value.is_object())
      throw InputError(fmt::format("{}: {} must be an object, not {}", source, name, shown(value)));
    Slo limit;
    apply_fields(limit, slo_fields(), value, "", source, name + ".", paths_of(slo_fields(), name + "."));
    if (limit.metric.empty()) throw InputError(fmt::format("{}: {} names no metric", source, name));
    if (!limit.min && !limit.max) throw InputError(fmt::format("{}: {} needs a min or a max", source, name));
    limits.push_back(std::move(limit));
  }
  slo = std::move(limits);
}

void validate_engine(const Profile& profile, const std::string& source) {
  const EngineOptions& engine = profile.engine;
  for (const auto& [kind, limit] : engine.limit_mm_per_prompt) {
    if (kind != "image")
      throw InputError(
          fmt::format("{}: engine.limit_mm_per_prompt knows image only, not {}", source, one_line(kind, 60)));
  }
  if (engine.max_num_batched_tokens < engine.max_num_seqs) {
    throw InputError(fmt::format("{}: engine.max_num_batched_tokens ({}) must not be below engine.max_num_seqs ({})",
                                 source, engine.max_num_batched_tokens, engine.max_num_seqs));
  }
  if (!engine.enable_chunked_prefill && engine.max_num_batched_tokens < engine.max_model_len) {
    throw InputError(
        fmt::format("{}: without engine.enable_chunked_prefill a prompt takes one step: engine.max_num_batched_tokens "
                    "({}) must not be below engine.max_model_len ({})",
                    source, engine.max_num_batched_tokens, engine.max_model_len));
  }
}

void validate_variants(const Profile& profile, const std::string& source) {
  if (profile.variants.empty()) throw InputError(fmt::format("{}: variants: at least one is needed", source));
  for (const auto& variant : profile.variants) {
    if (variant.kv_cache_dtype == KvCacheDtype::kFloat32 && profile.engine.device == Device::kCuda) {
      throw InputError(
          fmt::format("{}: variants.{}.kv_cache_dtype: float32 exists on the CPU only", source, variant.name));
    }
    if (variant.kv_cache_dtype != KvCacheDtype::kFp8E4M3 && variant.kv_scales != "unit") {
      throw InputError(
          fmt::format("{}: variants.{}.kv_scales: only an fp8_e4m3 cache has scales", source, variant.name));
    }
  }
}

void validate_workload(const Profile& profile, const std::string& source) {
  const WorkloadOptions& workload = profile.workload;
  if (workload.random.image_share > 0 && workload.random.image_sizes.empty()) {
    throw InputError(fmt::format("{}: workload.image_share needs workload.image_sizes", source));
  }
  if ((workload.shared_prefix.groups > 0) != (workload.shared_prefix.tokens > 0)) {
    throw InputError(fmt::format("{}: workload.shared_prefix needs both groups and tokens", source));
  }
}

}  // namespace

void apply(Profile& profile, const Json& json, const std::string& source) {
  if (!json.is_object()) throw InputError(fmt::format("{}: a profile is a JSON object, not {}", source, shown(json)));
  std::vector<std::string> known = paths_of(profile_fields(), "");
  known.insert(known.end(), {"variants", "slo", "extends"});
  Json leaves = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (key == "variants") {
      apply_variants(profile.variants, value, source);
    } else if (key == "slo") {
      apply_slo(profile.slo, value, source);
    } else if (key == "axes") {
      throw InputError(fmt::format("{}: is a sweep (it has axes): run it with qwenbench sweep", source));
    } else if (key != "extends") {
      leaves[key] = value;
    }
  }
  apply_fields(profile, profile_fields(), leaves, "", source, "", known);
}

void validate(const Profile& profile, const std::string& source) {
  if (profile.model.empty())
    throw InputError(fmt::format("{}: names no model: set model (a directory or a hub id)", source));
  validate_engine(profile, source);
  validate_variants(profile, source);
  validate_workload(profile, source);
}

}  // namespace qwenbench::profile
