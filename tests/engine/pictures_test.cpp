#include "engine/pictures.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/fake_executor.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

workload::Request with_pictures(std::vector<std::int32_t> prompt, int pictures) {
  workload::Request request;
  request.prompt = std::move(prompt);
  for (int i = 0; i < pictures; ++i) request.images.push_back(fake::picture(2, 4, "p"));
  return request;
}

std::vector<PictureSpan> find(const workload::Request& request) {
  return find_pictures(request.prompt, request.images, fake::config(), "request 1");
}

}  // namespace

TEST_CASE("positions are those of Hugging Face's get_rope_index") {
  const auto fixture = nlohmann::json::parse(std::ifstream("engine/fixtures/rope_index.json"));
  auto config = fake::config();
  config.image_token_id = fixture.at("image_token_id");
  for (const auto& test : fixture.at("cases")) {
    const auto ids = test.at("ids").get<std::vector<std::int32_t>>();
    std::vector<std::shared_ptr<const workload::Image>> images;
    for (const auto& grid : test.at("grids")) images.push_back(fake::picture(grid[0], grid[1], "p"));
    const auto spans = find_pictures(ids, images, config, "test");
    const RopePositions positions(static_cast<int>(ids.size()), spans);
    CHECK(positions.delta() == test.at("delta").get<int>());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      CHECK(positions.at(static_cast<int>(i)) == test.at("positions")[i].get<std::array<std::int32_t, 3>>());
    }
    // A decoded token: kv length + delta on all axes.
    const auto decoded = positions.at(static_cast<int>(ids.size()) + 3);
    const int expected = static_cast<int>(ids.size()) + 3 + test.at("delta").get<int>();
    CHECK(decoded == std::array<std::int32_t, 3>{expected, expected, expected});
  }
}

TEST_CASE("pads are assigned to pictures in order") {
  const std::int32_t pad = fake::kImagePad;
  const auto spans = find(with_pictures({1, pad, pad, pad, pad, 2}, 2));
  REQUIRE(spans.size() == 2);
  CHECK(spans[0].first == 1);
  CHECK(spans[1].first == 3);
  CHECK(spans[1].count == 2);
  CHECK(spans[1].grid_h == 1);
  CHECK(spans[1].grid_w == 2);
}

TEST_CASE("pads that do not fit the pictures are refused") {
  const std::int32_t pad = fake::kImagePad;
  CHECK_THROWS_AS(find(with_pictures({1, pad, pad}, 0)), InputError);          // no picture
  CHECK_THROWS_AS(find(with_pictures({1, pad}, 1)), InputError);               // too few pads
  CHECK_THROWS_AS(find(with_pictures({1, pad, 2, pad}, 1)), InputError);       // torn apart
  CHECK_THROWS_AS(find(with_pictures({1, pad, pad, 2}, 2)), InputError);       // a picture without pads
  CHECK_THROWS_AS(find(with_pictures({1, pad, pad, pad, 2}, 1)), InputError);  // one pad too many
  auto odd = with_pictures({1, pad, pad}, 0);
  odd.images = {fake::picture(3, 4, "odd")};
  CHECK_THROWS_AS(find(odd), InputError);
  auto short_of_pixels = std::make_shared<workload::Image>(*fake::picture(2, 4, "p"));
  short_of_pixels->pixel_values.pop_back();
  odd.images = {short_of_pixels};
  CHECK_THROWS_AS(find(odd), InputError);
}
