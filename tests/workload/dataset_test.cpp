#include "workload/dataset.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace qwenbench;
using namespace qwenbench::workload;

namespace {

std::string error_of(const std::string& text) {
  try {
    parse_dataset(text, "d", "dir/d.jsonl");
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("dataset: chat lines, plain text, pictures beside the file") {
  const Dataset d = parse_dataset(
      R"({"id": "a", "messages": [{"role": "user", "content": "Hi"}], "answer": "Ho", "task": "t", "max_tokens": 5}

{"id": 7, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "images/x.png"}}, {"type": "text", "text": "What?"}]}], "model": "ignored"}
{"text": "Some prose."})",
      "d", "dir/d.jsonl");
  REQUIRE(d.samples.size() == 3);
  CHECK(d.samples[0].answer == "Ho");
  CHECK(d.samples[0].task == "t");
  CHECK(d.samples[0].max_tokens == 5);
  CHECK(d.samples[1].id == "7");
  CHECK(d.samples[1].line == 3);
  REQUIRE(d.samples[1].messages[0].content.size() == 2);
  CHECK(d.samples[1].messages[0].content[0].kind == Content::Kind::kImage);
  CHECK(d.samples[1].messages[0].content[0].text == "dir/images/x.png");
  CHECK(d.samples[2].id == "line-4");
  CHECK(d.samples[2].text == "Some prose.");
  CHECK(d.where(d.samples[1]) == "dir/d.jsonl:3");
  CHECK(d.sha256.size() == 64);
}

TEST_CASE("dataset: errors name file and line") {
  CHECK(
      error_of("{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \n").starts_with("dir/d.jsonl:2: not valid JSON at column"));
  CHECK(error_of("[1]") == "dir/d.jsonl:1: must be a JSON object");
  CHECK(error_of("{}") == "dir/d.jsonl:1: needs either \"messages\" or \"text\"");
  CHECK(error_of("{\"text\": \"\"}") == "dir/d.jsonl:1: \"text\" is empty");
  CHECK(error_of("{\"messages\": []}") == "dir/d.jsonl:1: \"messages\" must be a list that is not empty");
  CHECK(error_of(R"({"messages": [{"content": "x"}]})") == "dir/d.jsonl:1: messages[0] has no \"role\"");
  CHECK(error_of(R"({"messages": [{"role": "user", "content": [{"type": "audio"}]}]})") ==
        "dir/d.jsonl:1: messages[0] content type \"audio\" is not text or image_url");
  CHECK(
      error_of(
          R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]})")
          .find("path of a PNG or JPEG file") != std::string::npos);
  CHECK(error_of("{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}") ==
        "dir/d.jsonl:2: the id a stands in line 1 already");
  CHECK(error_of(R"({"text": "x", "max_tokens": 0})") == "dir/d.jsonl:1: \"max_tokens\" must be a positive integer");
  CHECK(error_of("\n\n") == "dir/d.jsonl: holds no requests");
  CHECK_THROWS_WITH_AS(read_dataset("no-such-set"), doctest::Contains("datasets/no-such-set.jsonl"), InputError);
}

TEST_CASE("dataset: samples are spread evenly") {
  CHECK(spread(4, 0) == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(spread(4, 9) == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(spread(10, 4) == std::vector<std::size_t>{0, 2, 5, 7});
}
