// Two visitors over the fields of a struct: one writes a JSON object, one reads it. Each struct names its fields once
// (result_fields.h), so that what is written and what is read cannot drift apart. Private to src/report.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"

namespace qwenbench::report {

using Json = nlohmann::ordered_json;

/// T is Struct or const Struct: one field list serves the writer and the reader.
template <class T, class Struct>
concept Fields = std::same_as<std::remove_const_t<T>, Struct>;

template <class T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool>;

class FieldWriter {
 public:
  static constexpr bool kReads = false;

  /// `non_finite` collects the paths of optional numbers that were written as null because they are no numbers.
  FieldWriter(Json& object, std::string path, std::vector<std::string>& non_finite)
      : object_(object), path_(std::move(path)), non_finite_(non_finite) {
    if (object_.is_null()) object_ = Json::object();
  }

  template <class T>
  void operator()(const std::string& key, const T& value) {
    object_[key] = encode(value, path_ + key);
  }

  /// One array a member instead of one object an element.
  template <class Struct, class Member>
  void column(const std::string& key, const std::vector<Struct>& rows, Member Struct::*member) {
    Json array = Json::array();
    for (const Struct& row : rows) {
      if constexpr (std::same_as<Member, double>) {
        array.push_back(encode(std::optional<double>(row.*member), path_ + key));
      } else {
        array.push_back(encode(row.*member, path_ + key));
      }
    }
    object_[key] = std::move(array);
  }

 private:
  template <class T>
  Json encode(const std::optional<T>& value, const std::string& path) {
    if (!value) return nullptr;
    if constexpr (std::floating_point<T>) {
      if (!std::isfinite(*value)) {
        non_finite_.push_back(path);
        return nullptr;
      }
    }
    return encode(*value, path);
  }
  template <class T>
  Json encode(const std::vector<T>& values, const std::string& path) {
    Json array = Json::array();
    for (std::size_t i = 0; i < values.size(); ++i) array.push_back(encode(values[i], fmt::format("{}[{}]", path, i)));
    return array;
  }
  Json encode(double value, const std::string& path) {
    if (!std::isfinite(value)) throw std::invalid_argument(path + " of a result is not finite");
    return value;
  }
  Json encode(const std::string& value, const std::string&) { return value; }
  Json encode(const Json& value, const std::string&) { return value; }
  template <class T>
  requires std::integral<T> Json encode(T value, const std::string&) { return value; }
  template <class T>
  requires std::is_class_v<T> Json encode(const T& value, const std::string& path) {
    Json object;
    FieldWriter writer(object, path + ".", non_finite_);
    fields(writer, value);
    return object;
  }

  Json& object_;
  std::string path_;
  std::vector<std::string>& non_finite_;
};

class FieldReader {
 public:
  static constexpr bool kReads = true;

  /// `path` begins with the file's name; every error does.
  FieldReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) fail(path_, "an object is expected");
  }

  template <class T>
  void operator()(const std::string& key, T& value) {
    decode(at(key), value, name(key));
  }
  /// A member that may be missing is read as null.
  template <class T>
  void operator()(const std::string& key, std::optional<T>& value) {
    const auto found = object_.find(key);
    if (found == object_.end()) {
      value = std::nullopt;
    } else {
      decode(*found, value, name(key));
    }
  }

  template <class Struct, class Member>
  void column(const std::string& key, std::vector<Struct>& rows, Member Struct::*member) {
    const Json& array = at(key);
    if (!array.is_array()) fail(name(key), "an array is expected");
    if (rows.empty()) rows.resize(array.size());
    if (rows.size() != array.size()) fail(name(key), "the columns differ in length");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::string path = fmt::format("{}[{}]", name(key), i);
      if constexpr (std::same_as<Member, double>) {
        std::optional<double> value;
        decode(array[i], value, path);
        rows[i].*member = value.value_or(std::numeric_limits<double>::quiet_NaN());
      } else {
        decode(array[i], rows[i].*member, path);
      }
    }
  }

  /// For members with rules of their own.
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const { fail(name(key), what); }

 private:
  [[noreturn]] static void fail(const std::string& path, const std::string& what) {
    throw InputError(one_line(fmt::format("{}: {}; this is no usable result file", path, what)));
  }

  std::string name(const std::string& key) const { return path_ + (path_.ends_with(": ") ? "" : ".") + key; }

  const Json& at(const std::string& key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(name(key), "missing");
    return *found;
  }

  template <class T>
  void decode(const Json& json, std::optional<T>& value, const std::string& path) {
    if (json.is_null()) {
      value = std::nullopt;
    } else {
      decode(json, value.emplace(), path);
    }
  }
  template <class T>
  void decode(const Json& json, std::vector<T>& values, const std::string& path) {
    if (!json.is_array()) fail(path, "an array is expected");
    values.assign(json.size(), T{});
    for (std::size_t i = 0; i < values.size(); ++i) decode(json[i], values[i], fmt::format("{}[{}]", path, i));
  }
  void decode(const Json& json, double& value, const std::string& path) {
    if (!json.is_number()) fail(path, "a number is expected");
    value = json.get<double>();
    if (!std::isfinite(value)) fail(path, "a finite number is expected");
  }
  void decode(const Json& json, std::string& value, const std::string& path) {
    if (!json.is_string()) fail(path, "a text is expected");
    value = json.get<std::string>();
  }
  void decode(const Json& json, bool& value, const std::string& path) {
    if (!json.is_boolean()) fail(path, "true or false is expected");
    value = json.get<bool>();
  }
  void decode(const Json& json, Json& value, const std::string&) { value = json; }
  template <class T>
  requires std::integral<T>
  void decode(const Json& json, T& value, const std::string& path) {
    if (!json.is_number_integer()) fail(path, "a whole number is expected");
    bool fits = false;
    if (json.is_number_unsigned()) {
      fits = std::in_range<T>(json.get<std::uint64_t>());
    } else {
      fits = std::in_range<T>(json.get<std::int64_t>());
    }
    if (!fits) fail(path, "the number is out of range");
    value = json.get<T>();
  }
  template <class T>
  requires std::is_class_v<T>
  void decode(const Json& json, T& value, const std::string& path) {
    FieldReader reader(json, path);
    fields(reader, value);
  }

  const Json& object_;
  std::string path_;
};

}  // namespace qwenbench::report
