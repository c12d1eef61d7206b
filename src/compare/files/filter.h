// `--filter`: which runs and metrics take part, in benchstat's notation.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace qwenbench::compare {

/// Terms are KEY:VALUE, KEY:/REGEX/ and KEY:(VALUE OR ...); joined by AND (or nothing), OR, parentheses, and a leading
/// - or NOT for the opposite. Values with other characters than letters, digits and _.-+/%@,= stand in double quotes.
/// "metric" is the name of a metric; the other keys are those of Run. An empty text lets everything through.
class Filter {
 public:
  /// Throws InputError that points to the place.
  explicit Filter(const std::string& text);

  /// `value` gives the value of a key, and throws where there is none such. A filter that names no metric lets every
  /// metric through.
  bool operator()(const std::function<std::string(const std::string& key)>& value) const;

  /// A node of the expression; what one consists of is known to filter.cpp alone.
  struct Node;

 private:
  std::shared_ptr<const Node> root_;
};

}  // namespace qwenbench::compare
