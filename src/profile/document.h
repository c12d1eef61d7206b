// A profile's JSON before it becomes a Profile. Private to src/profile.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "profile/field.h"

namespace qwenbench::profile {

struct Document {
  Json json;
  std::string source;            // stands in error messages
  std::string name;              // where the JSON gives none
  std::filesystem::path folder;  // relative "extends" are looked up here
  std::string canonical;         // path of the file, for circles of "extends"; "" for a text
};

/// As load_profile and parse_profile find and parse it. Throws InputError.
Document read_document(const std::string& name);
Document parse_document(const std::string& text, const std::string& source, const std::filesystem::path& folder);

Profile build_profile(const Document& document, const std::vector<std::string>& overrides);

}  // namespace qwenbench::profile
