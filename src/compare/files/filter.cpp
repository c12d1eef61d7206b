#include "compare/files/filter.h"

#include <fmt/format.h>

#include <cctype>
#include <regex>
#include <vector>

#include "base/error.h"

namespace qwenbench::compare {

struct Filter::Node {
  enum class Kind { kAnd, kOr, kNot, kEqual, kMatch } kind;
  std::vector<std::shared_ptr<const Node>> parts;
  std::string key, value;
  std::regex pattern;
};

namespace {

using Node = Filter::Node;
using NodePtr = std::shared_ptr<const Node>;
constexpr int kMaxDepth = 50;

/// Recursive descent: or := and (OR and)*, and := not ([AND] not)*, not := (- | NOT) not | ( or ) | term.
class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  NodePtr parse() {
    NodePtr root = parse_or(0);
    if (at_ < text_.size()) fail("an operator or the end is expected");
    return root;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("--filter: {} at \"{}\" (character {}); a term is KEY:VALUE, as in variant:baseline",
                                 what, one_line(text_.substr(at_, 20)), at_ + 1));
  }
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take_word(const std::string& word) {
    skip_space();
    const std::size_t end = at_ + word.size();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    if (end < text_.size() && is_plain(text_[end])) return false;
    if (end < text_.size() && text_[end] == ':') return false;
    at_ = end;
    return true;
  }
  static bool is_plain(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string("_.-+/%@,=").find(c) != std::string::npos;
  }
  static NodePtr joined(Node::Kind kind, std::vector<NodePtr> parts) {
    if (parts.size() == 1) return parts.front();
    return std::make_shared<const Node>(Node{kind, std::move(parts), {}, {}, {}});
  }

  NodePtr parse_or(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    std::vector<NodePtr> parts{parse_and(depth)};
    while (take_word("OR")) parts.push_back(parse_and(depth));
    return joined(Node::Kind::kOr, std::move(parts));
  }
  NodePtr parse_and(int depth) {
    std::vector<NodePtr> parts{parse_not(depth)};
    while (true) {
      take_word("AND");
      skip_space();
      const std::size_t here = at_;
      if (at_ >= text_.size() || text_[at_] == ')' || take_word("OR")) {
        at_ = here;
        break;
      }
      parts.push_back(parse_not(depth));
    }
    return joined(Node::Kind::kAnd, std::move(parts));
  }
  NodePtr parse_not(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    if (take('-') || take_word("NOT")) {
      return std::make_shared<const Node>(Node{Node::Kind::kNot, {parse_not(depth + 1)}, {}, {}, {}});
    }
    if (!take('(')) return parse_term();
    NodePtr inner = parse_or(depth + 1);
    if (!take(')')) fail("a closing parenthesis is expected");
    return inner;
  }
  NodePtr parse_term() {
    const std::string key = parse_value();
    if (!take(':')) fail("a colon is expected");
    if (!take('(')) return parse_match(key);
    std::vector<NodePtr> parts{parse_match(key)};
    while (take_word("OR")) parts.push_back(parse_match(key));
    if (!take(')')) fail("OR or a closing parenthesis is expected");
    return joined(Node::Kind::kOr, std::move(parts));
  }
  NodePtr parse_match(const std::string& key) {
    skip_space();
    const bool regex = at_ < text_.size() && text_[at_] == '/';
    const std::size_t end = regex ? text_.find('/', at_ + 1) : std::string::npos;
    if (!regex || end == std::string::npos) {
      return std::make_shared<const Node>(Node{Node::Kind::kEqual, {}, key, parse_value(), {}});
    }
    const std::string pattern = text_.substr(at_ + 1, end - at_ - 1);
    try {
      Node node{Node::Kind::kMatch, {}, key, pattern, std::regex(pattern)};
      at_ = end + 1;
      return std::make_shared<const Node>(std::move(node));
    } catch (const std::regex_error&) {
      fail("no valid regular expression");
    }
  }
  std::string parse_value() {
    skip_space();
    std::string value;
    if (at_ < text_.size() && text_[at_] == '"') {
      const std::size_t end = text_.find('"', at_ + 1);
      if (end == std::string::npos) fail("the quote is not closed");
      value = text_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
      return value;
    }
    while (at_ < text_.size() && is_plain(text_[at_])) value += text_[at_++];
    if (value.empty()) fail("a name is expected");
    return value;
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

bool holds(const Node& node, const std::function<std::string(const std::string&)>& value) {
  switch (node.kind) {
    case Node::Kind::kAnd:
      for (const NodePtr& part : node.parts) {
        if (!holds(*part, value)) return false;
      }
      return true;
    case Node::Kind::kOr:
      for (const NodePtr& part : node.parts) {
        if (holds(*part, value)) return true;
      }
      return false;
    case Node::Kind::kNot:
      return !holds(*node.parts.front(), value);
    case Node::Kind::kEqual:
      return value(node.key) == node.value;
    case Node::Kind::kMatch:
      return std::regex_search(value(node.key), node.pattern);
  }
  return false;
}

}  // namespace

Filter::Filter(const std::string& text) {
  if (text.find_first_not_of(" \t") != std::string::npos) root_ = Parser(text).parse();
}

bool Filter::operator()(const std::function<std::string(const std::string&)>& value) const {
  return !root_ || holds(*root_, value);
}

}  // namespace qwenbench::compare
