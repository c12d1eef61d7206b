#include "model/tokenizer_file.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "model_text/fixtures.h"

namespace qwenbench::model {
namespace {

using nlohmann::json;

std::string load_error(const json& root) {
  return message_of<InputError>([&] { Tokenizer::from_json(root.dump(), "t.json"); });
}

/// The message after `change` was done to the small tokenizer's JSON.
template <class Change>
std::string error_after(const Change& change) {
  json root = text_fixture("tokenizer.json");
  change(root);
  return load_error(root);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(std::filesystem::temp_directory_path() / "qwenbench_tokenizer_file_test") {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& content) const { std::ofstream(path_ / name) << content; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST_CASE("another pipeline is refused by name") {
  CHECK(load_error(text_fixture("tokenizer.json")).empty());
  CHECK(contains(error_after([](json& t) { t["normalizer"] = nullptr; }), "normalizer: none (expected NFC)"));
  CHECK(contains(error_after([](json& t) { t["normalizer"]["type"] = "NFKC"; }), "normalizer: NFKC"));
  CHECK(contains(error_after([](json& t) {
                   t["pre_tokenizer"] = {{"type", "Whitespace"}};
                 }),
                 "pre_tokenizer: Whitespace"));
  CHECK(contains(error_after([](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; }),
                 "pattern (expected Qwen2's): \\w+"));
  CHECK(contains(error_after([](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }),
                 "Isolated"));
  CHECK(
      contains(error_after([](json& t) { t["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true; }), "use_regex"));
  CHECK(contains(error_after([](json& t) {
                   t["post_processor"] = {{"type", "TemplateProcessing"}};
                 }),
                 "TemplateProcessing"));
  CHECK(contains(error_after([](json& t) { t["decoder"] = {{"type", "WordPiece"}}; }), "decoder: WordPiece"));
  CHECK(contains(error_after([](json& t) { t["model"]["type"] = "Unigram"; }), "model: Unigram (expected BPE)"));
  CHECK(contains(error_after([](json& t) { t["model"]["dropout"] = 0.1; }), "dropout"));
  CHECK(contains(error_after([](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }), "end_of_word_suffix"));
}

TEST_CASE("a damaged vocabulary is refused") {
  CHECK(contains(message_of<InputError>([] { Tokenizer::from_json("{\"a\": ", "t.json"); }),
                 "t.json: is not valid JSON"));
  CHECK(contains(message_of<InputError>([] { Tokenizer::from_json("[]", "t.json"); }), "t.json: is not a JSON object"));
  CHECK(contains(error_after([](json& t) { t["model"].erase("vocab"); }), "\"vocab\""));
  CHECK(contains(error_after([](json& t) { t["model"]["vocab"]["a"] = -1; }), "the id of \"a\""));
  CHECK(contains(error_after([](json& t) { t["model"]["vocab"]["a"] = 1e18; }), "the id of \"a\""));
  CHECK(contains(error_after([](json& t) { t["model"]["vocab"]["a"] = t["model"]["vocab"]["b"]; }), "used twice"));
  CHECK(contains(error_after([](json& t) { t["model"]["vocab"].erase("z"); }), "byte 0x7a"));
  CHECK(contains(error_after([](json& t) { t["model"]["merges"][0] = "a b c"; }), "two tokens"));
  CHECK(contains(error_after([](json& t) {
                   t["model"]["merges"][0] = {"nothing", "known"};
                 }),
                 "\"nothing\" is not in"));
  CHECK(contains(error_after([](json& t) { t["model"]["merges"][0] = {"!", "!!!!!!!"}; }), "\"!!!!!!!\" is not in"));
  CHECK(contains(error_after([](json& t) { t["added_tokens"][0]["id"] = 5; }), "do not agree"));
  CHECK(contains(error_after([](json& t) { t["added_tokens"][1]["content"] = "<|endoftext|>"; }), "stands twice"));
  CHECK(contains(error_after([](json& t) { t["added_tokens"][0].erase("content"); }), "\"content\""));
  CHECK(contains(error_after([](json& t) { t["added_tokens"] = 3; }), "\"added_tokens\""));
  CHECK(contains(message_of<InputError>([] { Tokenizer::load("no/such/folder"); }), "no tokenizer.json"));
}

TEST_CASE("merges as strings, and vocab.json + merges.txt + tokenizer_config.json, give the same ids") {
  json root = text_fixture("tokenizer.json");
  std::string merges_txt = "#version: 0.2\n";
  for (json& merge : root["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    merges_txt += merge.get<std::string>() + "\n";
  }
  const Tokenizer strings = Tokenizer::from_json(root.dump(), "strings");

  json config;
  for (json token : root["added_tokens"]) {
    const int id = token["id"];
    token.erase("id");
    config["added_tokens_decoder"][std::to_string(id)] = token;
  }
  const TemporaryFolder folder;
  folder.write("vocab.json", root["model"]["vocab"].dump());
  folder.write("merges.txt", merges_txt);
  folder.write("tokenizer_config.json", config.dump());
  const Tokenizer slow = Tokenizer::load(folder.path());

  for (const json& entry : text_fixture("strings.json")) {
    const auto text = entry["text"].get<std::string>();
    const auto ids = entry["ids"].get<std::vector<std::int32_t>>();
    CAPTURE(text);
    CHECK(strings.encode(text) == ids);
    CHECK(slow.encode(text) == ids);
  }
}

TEST_CASE("damaged vocab.json, merges.txt and tokenizer_config.json are refused") {
  const TemporaryFolder folder;
  const auto error_of = [&] { return message_of<InputError>([&] { Tokenizer::load(folder.path()); }); };
  folder.write("vocab.json", "{}");
  CHECK(contains(error_of(), "vocab.json: \"vocab\""));
  folder.write("vocab.json", text_fixture("tokenizer.json")["model"]["vocab"].dump());
  CHECK(contains(error_of(), "merges.txt"));
  folder.write("merges.txt", "#version: 0.2\nabc\n");
  CHECK(contains(error_of(), "merges.txt: a merge must be two tokens: \"abc\""));
  folder.write("merges.txt", "");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})");
  CHECK(contains(error_of(), "is no number: \"x\""));
}

}  // namespace
}  // namespace qwenbench::model
