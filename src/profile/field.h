// The declarative description of a profile: one entry a field says its path, meaning, allowed values and place in the
// struct. Loading, printing, error messages and (later) sweep axes all read this table.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "profile/profile.h"

namespace qwenbench::profile {

using Json = nlohmann::ordered_json;

/// One leaf value of an Owner (Profile, Variant, Slo).
template <class Owner>
struct Field {
  std::string path;                               // dotted, from the owner: "engine.max_num_seqs"
  std::string doc;                                // what it means, with its unit
  std::string expected;                           // "an integer from 1 to 4096": completes "must be ..."
  std::function<bool(Owner&, const Json&)> read;  // false: the value is not as expected; the owner is then unchanged
  std::function<Json(const Owner&)> write;
};

/// In the order in which a resolved profile is printed. "variants" and "slo" stand apart: they are lists of owners.
const std::vector<Field<Profile>>& profile_fields();
const std::vector<Field<Variant>>& variant_fields();
const std::vector<Field<Slo>>& slo_fields();

}  // namespace qwenbench::profile
