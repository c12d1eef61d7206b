#include "base/sha256.h"

#include <doctest/doctest.h>

using namespace qwenbench;

// FIPS 180-4 examples.
TEST_CASE("sha256: known answers") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("sha256: pieces equal the whole") {
  const std::string text(1000, 'a');
  Sha256 pieces;
  for (std::size_t i = 0, step = 1; i < text.size(); i += step, step = step % 97 + 13)
    pieces.update(std::string_view(text).substr(i, step));
  CHECK(pieces.hex() == sha256_hex(text));
}
