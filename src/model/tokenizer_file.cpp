#include "model/tokenizer_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::model {

const std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

using nlohmann::json;

/// One file being read: every complaint begins with its name.
class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: {}", name_, one_line(what)));
  }

  json parse(std::string_view text) const {
    json value = json::parse(text.begin(), text.end(), nullptr, false);
    if (value.is_discarded()) fail("is not valid JSON; fetch the file again");
    if (!value.is_object()) fail("is not a JSON object; fetch the file again");
    return value;
  }

  /// The member, or null where it is missing.
  static const json& get(const json& object, const char* key) {
    static const json null;
    const auto it = object.is_object() ? object.find(key) : object.end();
    return !object.is_object() || it == object.end() ? null : *it;
  }

  bool flag(const json& object, const char* key, bool otherwise) const {
    const json& value = get(object, key);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) fail(fmt::format("\"{}\" must be true or false", key));
    return value.get<bool>();
  }

  std::string text(const json& object, const char* key) const {
    const json& value = get(object, key);
    if (!value.is_string()) fail(fmt::format("\"{}\" must be a string", key));
    return value.get<std::string>();
  }

  std::int32_t id(const json& value, const std::string& of) const {
    if (!value.is_number_integer() || value.get<double>() < 0 || value.get<double>() > kMaxTokenId) {
      fail(fmt::format("the id of \"{}\" must be a whole number from 0 to {}", of, kMaxTokenId));
    }
    return value.get<std::int32_t>();
  }

  void refuse(const char* part, const json& found, const char* expected) const {
    const json& type = get(found, "type");
    fail(fmt::format("unsupported {}: {} (expected {}); only Qwen2-style tokenizers can be read", part,
                     found.is_null()    ? "none"
                     : type.is_string() ? type.get<std::string>()
                                        : "unknown",
                     expected));
  }

 private:
  std::string name_;
};

std::string type_of(const json& part) {
  const json& type = Reader::get(part, "type");
  return type.is_string() ? type.get<std::string>() : "";
}

void check_normalizer(const Reader& reader, const json& normalizer) {
  if (type_of(normalizer) == "NFC") return;
  const json& steps = Reader::get(normalizer, "normalizers");
  if (type_of(normalizer) == "Sequence" && steps.is_array() && steps.size() == 1 && type_of(steps[0]) == "NFC") return;
  reader.refuse("normalizer", normalizer, "NFC");
}

void check_pre_tokenizer(const Reader& reader, const json& pre_tokenizer) {
  constexpr const char* kExpected = "Sequence of Split and ByteLevel";
  const json& steps = Reader::get(pre_tokenizer, "pretokenizers");
  if (type_of(pre_tokenizer) != "Sequence" || !steps.is_array()) {
    reader.refuse("pre_tokenizer", pre_tokenizer, kExpected);
  }
  if (steps.size() != 2) reader.fail("unsupported pre_tokenizer: expected two steps, Split and ByteLevel");
  if (type_of(steps[0]) != "Split") reader.refuse("first step of pre_tokenizer", steps[0], "Split");
  if (type_of(steps[1]) != "ByteLevel") reader.refuse("second step of pre_tokenizer", steps[1], "ByteLevel");
  const std::string pattern = reader.text(Reader::get(steps[0], "pattern"), "Regex");
  if (pattern != kQwenPattern) reader.fail("unsupported pre_tokenizer pattern (expected Qwen2's): " + pattern);
  if (reader.text(steps[0], "behavior") != "Isolated" || reader.flag(steps[0], "invert", false)) {
    reader.fail("unsupported pre_tokenizer: Split must have behavior Isolated, not inverted");
  }
  if (reader.flag(steps[1], "use_regex", true) || reader.flag(steps[1], "add_prefix_space", true)) {
    reader.fail("unsupported pre_tokenizer: ByteLevel must have use_regex and add_prefix_space false");
  }
}

/// Post-processor and decoder do nothing to ids when they are byte level; a template that adds tokens would.
void check_post_processing(const Reader& reader, const json& root) {
  const json& post = Reader::get(root, "post_processor");
  if (!post.is_null() && type_of(post) != "ByteLevel") reader.refuse("post_processor", post, "ByteLevel or none");
  const json& decoder = Reader::get(root, "decoder");
  if (type_of(decoder) != "ByteLevel") reader.refuse("decoder", decoder, "ByteLevel");
}

void check_model(const Reader& reader, const json& model) {
  if (!model.is_object() || (model.contains("type") && type_of(model) != "BPE")) reader.refuse("model", model, "BPE");
  const json& dropout = Reader::get(model, "dropout");
  if (!dropout.is_null() && dropout != 0.0) reader.fail("unsupported model: dropout makes the ids random");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = Reader::get(model, key);
    if (!value.is_null() && value != "") reader.fail(fmt::format("unsupported model: \"{}\" is not empty", key));
  }
}

void read_vocab(const Reader& reader, const json& vocab, TokenizerFile& out) {
  if (!vocab.is_object() || vocab.empty()) reader.fail("\"vocab\" must be an object of token: id");
  out.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) out.vocab.emplace_back(token, reader.id(id, token));
}

std::pair<std::string, std::string> split_merge(const Reader& reader, const std::string& line) {
  const std::size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
    reader.fail("a merge must be two tokens: \"" + line + "\"");
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

void read_merges(const Reader& reader, const json& merges, TokenizerFile& out) {
  if (!merges.is_array()) reader.fail("\"merges\" must be an array");
  out.merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      out.merges.push_back(split_merge(reader, merge.get_ref<const std::string&>()));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      out.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      reader.fail("a merge must be \"a b\" or [\"a\", \"b\"]");
    }
  }
}

AddedToken read_added_token(const Reader& reader, const json& token, const json& id) {
  AddedToken out;
  out.content = reader.text(token, "content");
  out.id = reader.id(id, out.content);
  out.special = reader.flag(token, "special", false);
  out.lstrip = reader.flag(token, "lstrip", false);
  out.rstrip = reader.flag(token, "rstrip", false);
  out.single_word = reader.flag(token, "single_word", false);
  out.normalized = reader.flag(token, "normalized", !out.special);
  if (out.content.size() > 1024) reader.fail("an added token is longer than 1024 bytes: \"" + out.content + "\"");
  return out;
}

TokenizerFile read_slow_files(const std::filesystem::path& model_dir) {
  TokenizerFile out;
  const Reader vocab(model_dir / "vocab.json");
  read_vocab(vocab, vocab.parse(read_file(model_dir / "vocab.json")), out);

  const Reader merges(model_dir / "merges.txt");
  std::istringstream lines(read_file(model_dir / "merges.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    out.merges.push_back(split_merge(merges, line));
  }

  const std::filesystem::path config_path = model_dir / "tokenizer_config.json";
  if (!std::filesystem::exists(config_path)) return out;
  const Reader config(config_path);
  const json root = config.parse(read_file(config_path));
  const json& added = Reader::get(root, "added_tokens_decoder");
  if (added.is_null()) return out;
  if (!added.is_object()) config.fail("\"added_tokens_decoder\" must be an object of id: token");
  for (const auto& [key, token] : added.items()) {
    const bool is_number = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!is_number) config.fail("an id in \"added_tokens_decoder\" is no number: \"" + key + "\"");
    out.added.push_back(read_added_token(config, token, json(std::stoi(key))));
  }
  return out;
}

}  // namespace

TokenizerFile parse_tokenizer_json(std::string_view text, const std::string& name) {
  const Reader reader(name);
  const json root = reader.parse(text);
  check_normalizer(reader, Reader::get(root, "normalizer"));
  check_pre_tokenizer(reader, Reader::get(root, "pre_tokenizer"));
  check_post_processing(reader, root);
  const json& model = Reader::get(root, "model");
  check_model(reader, model);

  TokenizerFile out;
  out.ignore_merges = reader.flag(model, "ignore_merges", false);
  read_vocab(reader, Reader::get(model, "vocab"), out);
  read_merges(reader, Reader::get(model, "merges"), out);
  const json& added = Reader::get(root, "added_tokens");
  if (!added.is_null() && !added.is_array()) reader.fail("\"added_tokens\" must be an array");
  for (const json& token : added) out.added.push_back(read_added_token(reader, token, Reader::get(token, "id")));
  return out;
}

TokenizerFile read_tokenizer_files(const std::filesystem::path& model_dir) {
  const std::filesystem::path fast = model_dir / "tokenizer.json";
  if (std::filesystem::exists(fast)) return parse_tokenizer_json(read_file(fast), fast);
  if (std::filesystem::exists(model_dir / "vocab.json")) return read_slow_files(model_dir);
  throw InputError(
      fmt::format("{}: no tokenizer.json and no vocab.json; is this a model's folder?", model_dir.string()));
}

}  // namespace qwenbench::model
