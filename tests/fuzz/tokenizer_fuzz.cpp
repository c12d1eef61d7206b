// tokenizer.json and text from anywhere: an InputError, or ids whose decoding is the text again. Byte 0 chooses: a
// whole tokenizer.json, or text (with the ids of damaged byte sequences) for a fixed one, or a chat template.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

namespace {

using qwenbench::InputError;
using qwenbench::model::StreamDecoder;
using qwenbench::model::Tokenizer;

/// The smallest tokenizer.json that loads: 256 bytes, four merges, three added tokens.
std::string fixed_json() {
  std::string vocab;
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool is_printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    std::string token;
    if (b == '"' || b == '\\') token = "\\";
    qwenbench::model::append_utf8(token, is_printable ? b : next++);
    vocab += "\"" + token + "\":" + std::to_string(b) + ",";
  }
  vocab += R"("th":256,"the":257,"\u0120the":258,"aa":259)";
  return R"({"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
         R"("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},)"
         R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},)"
         R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
         vocab +
         R"(},"merges":[["t","h"],["th","e"],["\u0120","the"],["a","a"]]},"added_tokens":[)"
         R"({"id":260,"content":"<|x|>","special":true,"normalized":false},)"
         R"({"id":261,"content":"\u00e9 ","lstrip":true,"normalized":true},)"
         R"({"id":262,"content":"ab","rstrip":true,"single_word":true,"normalized":false}]})";
}

void require(bool condition) {
  if (!condition) std::abort();
}

void check_text(const Tokenizer& tokenizer, std::string_view text, bool is_lossless) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  const std::string decoded = tokenizer.decode(ids);
  if (is_lossless) require(decoded == qwenbench::model::to_nfc(text));
  StreamDecoder stream(tokenizer, false);
  std::string pieces;
  for (const std::int32_t id : ids) pieces += stream.push(id);
  require(pieces + stream.flush() == decoded);
}

void check_bytes(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<std::int32_t> ids;
  for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
  const std::string decoded = tokenizer.decode(ids);
  require(qwenbench::model::find_invalid_utf8(decoded) == std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Tokenizer fixed = Tokenizer::from_json(fixed_json(), "fixed");
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == '{' || data[0] % 4 == 0) {
      const std::string_view json(reinterpret_cast<const char*>(data) + (data[0] == '{' ? 0 : 1),
                                  size - (data[0] != '{'));
      const Tokenizer tokenizer = Tokenizer::from_json(json, "fuzz");
      check_text(tokenizer, "the the <|x|> caf\u00e9 e\u0301 12 'S\n", false);
    } else if (data[0] % 4 == 1) {
      check_bytes(fixed, input);
    } else if (data[0] % 4 == 2) {
      qwenbench::model::ChatTemplate::style_of(std::string(input), "fuzz");
    } else {
      const bool has_added =
          input.find("<|x|>") != std::string_view::npos || input.find("ab") != std::string_view::npos ||
          input.find("\u00e9") != std::string_view::npos || input.find("\u0301") != std::string_view::npos ||
          input.find("\u0341") != std::string_view::npos;
      check_text(fixed, input, !has_added);
    }
  } catch (const InputError&) {
  }
  return 0;
}
