#include "engine/block_manager.h"

#include <doctest/doctest.h>

#include <random>
#include <stdexcept>

using namespace qwenbench::engine;

namespace {

std::vector<BlockKey> keys_of(const std::vector<std::int32_t>& tokens, int block_size,
                              const std::vector<PictureIdentity>& pictures = {}) {
  std::vector<BlockKey> keys;
  extend_block_keys(keys, tokens, pictures, block_size);
  return keys;
}

}  // namespace

TEST_CASE("blocks: allocate, share, release") {
  BlockManager blocks(2, nullptr);
  const auto first = blocks.allocate();
  blocks.retain(first);
  const auto second = blocks.allocate();
  CHECK(first != second);
  CHECK(blocks.num_free() == 0);
  CHECK_THROWS_AS(blocks.allocate(), std::logic_error);
  blocks.release(first);
  CHECK(blocks.num_free() == 0);
  blocks.release(first);
  CHECK(blocks.num_free() == 1);
  CHECK_THROWS_AS(blocks.release(first), std::logic_error);
  CHECK(blocks.allocate() == first);
}

TEST_CASE("blocks: cached ones are overwritten last, the longest out of use first") {
  PrefixCache cache(4);
  BlockManager blocks(4, &cache);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 4; ++i) held.push_back(blocks.allocate());
  cache.insert("one", held[1]);
  cache.insert("three", held[3]);
  for (const auto block : held) blocks.release(block);
  blocks.retain(held[1]);  // used again
  blocks.release(held[1]);
  CHECK(!cache.holds(blocks.allocate()));
  CHECK(!cache.holds(blocks.allocate()));
  CHECK(cache.size() == 2);
  CHECK(blocks.allocate() == held[3]);
  CHECK(cache.size() == 1);
  CHECK(blocks.allocate() == held[1]);
  CHECK(cache.size() == 0);
}

TEST_CASE("keys: a chain over ids and pictures, full blocks only") {
  const std::vector<std::int32_t> tokens{1, 2, 3, 9, 9, 9, 9, 4, 5};
  const auto keys = keys_of(tokens, 2);
  CHECK(keys.size() == 4);
  const auto other_start = keys_of({7, 2, 3, 9, 9, 9, 9, 4, 5}, 2);
  for (std::size_t i = 0; i < keys.size(); ++i) CHECK(keys[i] != other_start[i]);

  const auto cat = keys_of(tokens, 2, {{3, 4, "cat"}}), dog = keys_of(tokens, 2, {{3, 4, "dog"}});
  CHECK(cat[0] == keys[0]);  // nothing of the picture in it
  CHECK(cat[0] == dog[0]);
  for (std::size_t i = 1; i < keys.size(); ++i) CHECK(cat[i] != dog[i]);

  // The same pads belong to one picture of four, or to two of two.
  const auto two = keys_of(tokens, 2, {{3, 2, "cat"}, {5, 2, "cat"}});
  CHECK(two[3] != cat[3]);

  std::vector<BlockKey> grown;
  extend_block_keys(grown, std::span(tokens).first(3), {}, 2);
  extend_block_keys(grown, tokens, {}, 2);
  CHECK(grown == keys);
}

TEST_CASE("prefix cache: the longest known run, up to a limit") {
  const auto keys = keys_of({1, 2, 3, 4, 5, 6, 7, 8}, 2);
  PrefixCache cache(8);
  cache.insert(keys[0], 5);
  cache.insert(keys[1], 3);
  cache.insert(keys[3], 1);
  CHECK(cache.match(keys, 4) == std::vector<std::int32_t>{5, 3});
  CHECK(cache.match(keys, 1) == std::vector<std::int32_t>{5});
  cache.insert(keys[0], 6);  // the first one stays
  CHECK(!cache.holds(6));
  CHECK(cache.match(keys, 1) == std::vector<std::int32_t>{5});
  cache.forget(5);
  CHECK(cache.match(keys, 4).empty());
}
