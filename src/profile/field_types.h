// How one kind of value is read from and written to JSON: the building blocks of the field table.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "profile/field.h"

namespace qwenbench::profile {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// False where the value is no integer or does not fit.
inline bool read_integer(const Json& json, std::int64_t low, std::int64_t high, std::int64_t& out) {
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) return false;
  const auto value = json.get<std::int64_t>();
  if (value < low || value > high) return false;
  out = value;
  return true;
}

template <class Owner, class Access>
Field<Owner> integer_field(std::string path, Access access, std::int64_t low, std::int64_t high, std::string doc) {
  Field<Owner> field{std::move(path), std::move(doc), fmt::format("an integer from {} to {}", low, high), {}, {}};
  field.read = [access, low, high](Owner& owner, const Json& json) {
    std::int64_t value = 0;
    if (!read_integer(json, low, high, value)) return false;
    access(owner) = static_cast<std::remove_reference_t<decltype(access(owner))>>(value);
    return true;
  };
  field.write = [access](const Owner& owner) { return Json(access(owner)); };
  return field;
}

/// low and high are allowed values; `open_low` leaves low itself out.
template <class Owner, class Access>
Field<Owner> number_field(std::string path, Access access, double low, double high, bool open_low, std::string doc) {
  const std::string range = high == kInfinity ? fmt::format("a number {} {}", open_low ? "above" : "not below", low)
                            : open_low        ? fmt::format("a number above {} up to {}", low, high)
                                              : fmt::format("a number from {} to {}", low, high);
  Field<Owner> field{std::move(path), std::move(doc), range, {}, {}};
  field.read = [access, low, high, open_low](Owner& owner, const Json& json) {
    if (!json.is_number()) return false;
    const auto value = json.get<double>();
    if (!std::isfinite(value) || value < low || value > high || (open_low && value == low)) return false;
    access(owner) = value;
    return true;
  };
  field.write = [access](const Owner& owner) { return Json(access(owner)); };
  return field;
}

template <class Owner, class Access>
Field<Owner> bool_field(std::string path, Access access, std::string doc) {
  Field<Owner> field{std::move(path), std::move(doc), "true or false", {}, {}};
  field.read = [access](Owner& owner, const Json& json) {
    if (!json.is_boolean()) return false;
    access(owner) = json.get<bool>();
    return true;
  };
  field.write = [access](const Owner& owner) { return Json(access(owner)); };
  return field;
}

template <class Owner, class Access>
Field<Owner> text_field(std::string path, Access access, bool may_be_empty, std::string doc) {
  Field<Owner> field{std::move(path), std::move(doc), may_be_empty ? "a text" : "a text that is not empty", {}, {}};
  field.read = [access, may_be_empty](Owner& owner, const Json& json) {
    if (!json.is_string() || (!may_be_empty && json.get_ref<const std::string&>().empty())) return false;
    access(owner) = json.get<std::string>();
    return true;
  };
  field.write = [access](const Owner& owner) { return Json(access(owner)); };
  return field;
}

/// One of a few words. Later names for the same value are accepted aliases; the first is written.
template <class Owner, class Access, class Value>
Field<Owner> choice_field(std::string path, Access access, std::vector<std::pair<std::string, Value>> choices,
                          std::string doc) {
  std::string expected = "one of";
  for (const auto& [name, value] : choices)
    expected += fmt::format("{} {}", name == choices.front().first ? "" : ",", name);
  Field<Owner> field{std::move(path), std::move(doc), expected, {}, {}};
  field.read = [access, choices](Owner& owner, const Json& json) {
    if (!json.is_string()) return false;
    for (const auto& [name, value] : choices) {
      if (name != json.get_ref<const std::string&>()) continue;
      access(owner) = value;
      return true;
    }
    return false;
  };
  field.write = [access, choices](const Owner& owner) {
    for (const auto& [name, value] : choices) {
      if (value == access(owner)) return Json(name);
    }
    return Json();
  };
  return field;
}

template <class Owner, class Access>
Field<Owner> word_field(std::string path, Access access, const std::vector<std::string>& words, std::string doc) {
  std::vector<std::pair<std::string, std::string>> choices;
  for (const auto& word : words) choices.emplace_back(word, word);
  return choice_field<Owner>(std::move(path), access, std::move(choices), std::move(doc));
}

/// name -> number. Entries are merged into what an extended profile says; null removes one.
template <class Owner, class Access>
Field<Owner> map_field(std::string path, Access access, double low, double high, bool integers, std::string doc) {
  const std::string range =
      high == kInfinity ? fmt::format("not below {}", low) : fmt::format("from {} to {}", low, high);
  Field<Owner> field{std::move(path),
                     std::move(doc),
                     fmt::format("an object of {} {}", integers ? "integers" : "numbers", range),
                     {},
                     {}};
  field.read = [access, low, high, integers](Owner& owner, const Json& json) {
    if (!json.is_object()) return false;
    auto merged = access(owner);
    for (const auto& [key, value] : json.items()) {
      if (value.is_null()) {
        merged.erase(key);
        continue;
      }
      if (integers ? !value.is_number_integer() : !value.is_number()) return false;
      const auto number = value.template get<double>();
      if (!std::isfinite(number) || number < low || number > high) return false;
      merged[key] = static_cast<typename std::remove_reference_t<decltype(merged)>::mapped_type>(number);
    }
    access(owner) = std::move(merged);
    return true;
  };
  field.write = [access](const Owner& owner) {
    Json json = Json::object();
    for (const auto& [key, value] : access(owner)) json[key] = value;
    return json;
  };
  return field;
}

/// One integer, or [min, max].
template <class Owner, class Access>
Field<Owner> range_field(std::string path, Access access, std::int64_t low, std::int64_t high, std::string doc) {
  Field<Owner> field{std::move(path),
                     std::move(doc),
                     fmt::format("an integer from {0} to {1}, or [min, max] of such", low, high),
                     {},
                     {}};
  field.read = [access, low, high](Owner& owner, const Json& json) {
    const bool pair = json.is_array() && json.size() == 2;
    std::int64_t first = 0, last = 0;
    if (!read_integer(pair ? json[0] : json, low, high, first)) return false;
    if (!read_integer(pair ? json[1] : json, first, high, last)) return false;
    access(owner) = Range{static_cast<int>(first), static_cast<int>(last)};
    return true;
  };
  field.write = [access](const Owner& owner) {
    const Range& range = access(owner);
    return range.min == range.max ? Json(range.min) : Json{range.min, range.max};
  };
  return field;
}

}  // namespace qwenbench::profile
