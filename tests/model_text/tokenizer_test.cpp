// Against Hugging Face's `tokenizers`: scripts/fixtures/make_tokenizer_fixtures.py made the fixtures.
#include "model/tokenizer.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <thread>

#include "base/error.h"
#include "base/sha256.h"
#include "model/utf8.h"
#include "model_text/fixtures.h"

namespace qwenbench::model {
namespace {

using Ids = std::vector<std::int32_t>;

std::string repeated(std::string_view piece, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += piece;
  return out;
}

TEST_CASE("ids are those of HF tokenizers") {
  const auto cases = text_fixture("strings.json");
  CHECK(cases.size() >= 2000);
  for (const auto& entry : cases) {
    const auto text = entry["text"].get<std::string>();
    CAPTURE(text);
    CHECK(small_tokenizer().encode(text) == entry["ids"].get<Ids>());
  }
}

TEST_CASE("every assigned code point in context gives the ids of HF tokenizers") {
  const auto fixture = text_fixture("code_points.json");
  std::vector<Sha256> digests(0x110);
  for (const auto& range : fixture["ranges"]) {
    for (auto c = range[0].get<char32_t>(); c <= range[1].get<char32_t>(); ++c) {
      std::string x;
      append_utf8(x, c);
      const Ids ids = small_tokenizer().encode("a" + x + "b " + x + "1" + x + " '" + x + "\n");
      digests[c >> 12].update(fmt::format("{:x}:{}\n", static_cast<std::uint32_t>(c), fmt::join(ids, " ")));
    }
  }
  for (std::size_t block = 0; block < digests.size(); ++block) {
    CAPTURE(block);  // code points block * 4096 ...
    CHECK(digests[block].hex().substr(0, 16) == fixture["hashes"][block].get<std::string>());
  }
}

TEST_CASE("added tokens match with lstrip, rstrip, single_word and normalized as in HF") {
  const auto fixture = text_fixture("flags.json");
  auto root = text_fixture("tokenizer.json");
  for (const auto& token : fixture["added_tokens"]) root["added_tokens"].push_back(token);
  const Tokenizer tokenizer = Tokenizer::from_json(root.dump(), "flags");
  for (const auto& entry : fixture["cases"]) {
    const auto text = entry["text"].get<std::string>();
    CAPTURE(text);
    CHECK(tokenizer.encode(text) == entry["ids"].get<Ids>());
  }
  Ids added;
  for (const auto& token : fixture["added_tokens"]) added.push_back(token["id"].get<std::int32_t>());
  CHECK(tokenizer.decode(added) == fixture["decoded"].get<std::string>());
}

TEST_CASE("decoding is HF's, whole or as a stream, and never half a character") {
  for (const auto& entry : text_fixture("decode.json")) {
    const Ids ids = entry["ids"].get<Ids>();
    CAPTURE(ids);
    CHECK(small_tokenizer().decode(ids) == entry["text"].get<std::string>());
    CHECK(small_tokenizer().decode(ids, true) == entry["without_special"].get<std::string>());
    StreamDecoder stream(small_tokenizer());
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string piece = stream.push(id);
      CHECK(find_invalid_utf8(piece) == std::string::npos);
      text += piece;
    }
    CHECK(text + stream.flush() == entry["without_special"].get<std::string>());
  }
}

TEST_CASE("a character that spans tokens is held back until it is complete") {
  const Ids ids = small_tokenizer().encode("\U0001f9ff");
  REQUIRE(ids.size() > 1);
  StreamDecoder stream(small_tokenizer());
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) CHECK(stream.push(ids[i]).empty());
  CHECK(stream.push(ids.back()) == "\U0001f9ff");
  CHECK(stream.flush().empty());
  stream.push(ids[0]);
  CHECK(stream.flush() == "\ufffd");
}

TEST_CASE("invalid UTF-8 is reported with its offset") {
  const auto error_of = [](const std::string& text) {
    return message_of<InputError>([&] { small_tokenizer().encode(text); });
  };
  CHECK(error_of("abc\xff") == "text is not valid UTF-8 at byte 3 (0xff): convert it to UTF-8");
  CHECK(error_of("\xed\xa0\x80").find("at byte 0 (0xed)") != std::string::npos);  // a surrogate
  CHECK(error_of("ab\xc0\xaf").find("at byte 2") != std::string::npos);           // overlong
  CHECK(error_of("ab\xe4\xbd").find("at byte 2") != std::string::npos);           // cut off
  CHECK(error_of("\xf4\x90\x80\x80").find("at byte 0") != std::string::npos);     // above U+10FFFF
}

TEST_CASE("long input of one kind does not blow up") {
  constexpr std::size_t kCount = 1'000'000;
  for (const std::string_view piece : {"a", " ", "\n", "!", "the", "\u0301", "\u0345\u0323", "<|im_", "\t \n"}) {
    const std::string text = repeated(piece, kCount / piece.size());
    CAPTURE(piece);
    const Ids ids = small_tokenizer().encode(text);
    CHECK(!ids.empty());
    if (piece != "\u0345\u0323") CHECK(small_tokenizer().decode(ids) == text);  // NFC reorders that one
  }
}

TEST_CASE("look-up of tokens") {
  const Tokenizer& tokenizer = small_tokenizer();
  const auto end = tokenizer.id_of("<|im_end|>");
  REQUIRE(end);
  CHECK(tokenizer.is_special(*end));
  CHECK(tokenizer.bytes_of(*end) == "<|im_end|>");
  CHECK_FALSE(tokenizer.is_special(tokenizer.id_of("<think>").value()));
  CHECK_FALSE(tokenizer.id_of("no such token"));
  CHECK(tokenizer.bytes_of(tokenizer.id_of("\u0120the").value()) == " the");
  CHECK(tokenizer.vocab_size() == tokenizer.id_of("</think>").value() + 1);
  CHECK(tokenizer.bytes_of(-1).empty());
  CHECK(tokenizer.bytes_of(tokenizer.vocab_size()).empty());
}

TEST_CASE("several threads encode at once") {
  const auto cases = text_fixture("strings.json");
  std::vector<int> wrong(3, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < cases.size(); i += 2) {
        wrong[t] += small_tokenizer().encode(cases[i]["text"].get<std::string>()) != cases[i]["ids"].get<Ids>();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(3, 0));
}

}  // namespace
}  // namespace qwenbench::model
