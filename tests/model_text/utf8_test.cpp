#include "model/utf8.h"

#include <doctest/doctest.h>

namespace qwenbench::model {
namespace {

std::string repaired(std::string bytes) { return take_valid_utf8(bytes, true); }

TEST_CASE("damage becomes one U+FFFD for each maximal subpart (the Unicode Standard, table 3-8)") {
  CHECK(repaired("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") == "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA");
  CHECK(repaired("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == "\ufffd\ufffd\ufffd\ufffdA");
  CHECK(repaired("\xed\xa0\x80") == "\ufffd\ufffd\ufffd");
  CHECK(repaired("a\xf0\x9f\x98") == "a\ufffd");
}

TEST_CASE("an unfinished character stays pending") {
  std::string pending = "a\xf0\x9f\x98";
  CHECK(take_valid_utf8(pending, false) == "a");
  CHECK(pending == "\xf0\x9f\x98");
  pending += "\x80";
  CHECK(take_valid_utf8(pending, false) == "\U0001f600");
  CHECK(pending.empty());
}

TEST_CASE("NFC composes, reorders and leaves what is excluded (UAX #15)") {
  CHECK(to_nfc("e\u0301") == "\u00e9");
  CHECK(to_nfc("q\u0307\u0323") == "q\u0323\u0307");
  CHECK(to_nfc("\u212b") == "\u00c5");
  CHECK(to_nfc("\u0958") == "\u0915\u093c");  // composition exclusion
  CHECK(to_nfc("\u1112\u1161\u11ab") == "\ud55c");
  CHECK(to_nfc("a\u0315\u0300\u05ae\u0301b") ==
        "\u00e0\u05ae\u0301\u0315"
        "b");
}

TEST_CASE("white space and word characters") {
  CHECK(is_space(0x85));
  CHECK(is_space(0x3000));
  CHECK_FALSE(is_space(0x180e));
  CHECK_FALSE(is_space(0x200b));
  CHECK(is_word(U'_'));
  CHECK(is_word(0x301));
  CHECK(is_word(0x24b6));
  CHECK_FALSE(is_word(U'-'));
  CHECK_FALSE(is_word(0xb2));  // superscript two: a number, but no word character
}

}  // namespace
}  // namespace qwenbench::model
