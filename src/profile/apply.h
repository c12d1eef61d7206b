// JSON values onto a Profile, by the field table.
#pragma once

#include <string>

#include "profile/field.h"

namespace qwenbench::profile {

/// Fields that `json` names are set, the others stay: so a profile is applied over the one that it extends, and --set
/// over both. Throws InputError "SOURCE: PATH: ..." for an unknown key (naming the nearest), a wrong type, or a value
/// out of range.
void apply(Profile& profile, const Json& json, const std::string& source);

/// What no single field can tell: throws InputError naming the fields that contradict each other.
void validate(const Profile& profile, const std::string& source);

}  // namespace qwenbench::profile
