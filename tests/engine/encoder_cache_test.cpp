#include "engine/encoder_cache.h"

#include <doctest/doctest.h>

using namespace qwenbench::engine;

namespace {

std::shared_ptr<EncodedPicture> picture(int tokens) {
  auto picture = std::make_shared<EncodedPicture>();
  picture->tokens = tokens;
  return picture;
}

}  // namespace

TEST_CASE("the least recently used pictures go first") {
  EncoderCache cache(10);
  cache.insert("a", picture(4));
  cache.insert("b", picture(4));
  CHECK(cache.find("a"));
  cache.insert("c", picture(4));
  CHECK(cache.kept_tokens() == 8);
  CHECK(cache.find("a"));
  CHECK(!cache.find("b"));
  CHECK(cache.find("c"));
}

TEST_CASE("a picture that a sequence holds is found, however large") {
  EncoderCache cache(10);
  auto held = picture(50);
  cache.insert("large", held);
  CHECK(cache.kept_tokens() == 0);
  CHECK(cache.find("large") == held);
  held.reset();
  CHECK(!cache.find("large"));
}

TEST_CASE("clear forgets everything") {
  EncoderCache cache(10);
  const auto held = picture(3);
  cache.insert("a", held);
  cache.clear();
  CHECK(!cache.find("a"));
  CHECK(cache.kept_tokens() == 0);
}
