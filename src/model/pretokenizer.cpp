#include "model/pretokenizer.h"

#include <fmt/format.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace qwenbench::model {
namespace {

struct Freer {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
using Code = std::unique_ptr<pcre2_code, Freer>;

// Letters and numbers of Unicode 15 and 16, which HF's pattern library knows and PCRE2 10.42 (Unicode 14) does not.
constexpr std::string_view kNewLetters =
    R"(\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}\x{10d6f}-\x{10d85})"
    R"(\x{10ec2}-\x{10ec4}\x{1123f}\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7}\x{113d1})"
    R"(\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446})"
    R"(\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a})"
    R"(\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view kNewNumbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})"
    R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";
// PCRE2's \s would also match U+180E, which has not been white space since Unicode 6.3.
constexpr std::string_view kSpace =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// kQwenPattern for PCRE2, its classes spelled out where the two libraries differ.
std::string pattern() {
  return fmt::format(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n{L}{N}]?[{L}]+|[{N}]| ?[^{S}{L}{N}]+[\r\n]*|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+)",
      fmt::arg("L", std::string(R"(\p{L})").append(kNewLetters)),
      fmt::arg("N", std::string(R"(\p{N})").append(kNewNumbers)), fmt::arg("S", kSpace));
}

Code compile() {
  const std::string source = pattern();
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &offset, nullptr));
  if (!code) throw std::logic_error(fmt::format("pre-tokenizer pattern: PCRE2 error {} at {}", error, offset));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter gives the same matches
  return code;
}

const pcre2_code* compiled_pattern() {
  static const Code code = compile();
  return code.get();
}

}  // namespace

void split_words(std::string_view text, const std::function<void(std::string_view)>& word) {
  const pcre2_code* code = compiled_pattern();
  const std::unique_ptr<pcre2_match_data, Freer> match(pcre2_match_data_create_from_pattern(code, nullptr));
  const std::unique_ptr<pcre2_match_context, Freer> context(pcre2_match_context_create(nullptr));
  if (!match || !context) throw std::bad_alloc();
  // A step back over a run of white space counts against this limit; the default would refuse runs of some megabytes.
  pcre2_set_match_limit(context.get(),
                        static_cast<std::uint32_t>(std::min<std::size_t>(0xffffffffu, 10'000'000 + 8 * text.size())));

  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    int result = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result =
          pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match.get(), context.get());
    }
    if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
      throw InputError(
          fmt::format("text cannot be split into words at byte {} (PCRE2 error {}): shorten it", at, result));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    const std::size_t begin = result < 0 ? text.size() : ends[0];
    const std::size_t end = result < 0 ? text.size() : ends[1];
    if (begin > at) word(text.substr(at, begin - at));  // what no branch matches stays one piece
    if (end > begin) word(text.substr(begin, end - begin));
    at = end;
  }
}

}  // namespace qwenbench::model
