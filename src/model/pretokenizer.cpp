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

/// kQwenPattern for PCRE2. Its \s would also match U+180E, which has not been white space since Unicode 6.3, so white
/// space is spelled out.
std::string pattern() {
  const std::string space =
      R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^)" + space + R"(\p{L}\p{N}]+[\r\n]*|[)" +
         space + R"(]*[\r\n]+|[)" + space + R"(]+(?![^)" + space + R"(])|[)" + space + R"(]+)";
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
