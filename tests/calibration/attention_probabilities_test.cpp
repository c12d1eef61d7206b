#include "calibration/attention_probabilities.h"

#include <doctest/doctest.h>

#include <cmath>
#include <thread>

using namespace qwenbench;
using namespace qwenbench::calibration;

namespace {

/// One layer, one KV head, two query heads, head_dim 1: K of token t is -t / 2, Q is 1 or 0, so that P~ of key t is
/// exp(-t / 2) for head 0 and 1 for head 1.
constexpr StatisticsShape kShape{1, 1, 1, 2};

void show(KeptRequest& request, Kind kind, int head, int tokens, float (*value)(int)) {
  for (int t = 0; t < tokens; ++t) {
    const float x = value(t);
    request.observe(kind, 0, head, &x, 1, 1, {});
  }
}

void fill(KeptRequest& request, int tokens) {
  show(request, Kind::kKey, 0, tokens, [](int t) { return -0.5f * static_cast<float>(t); });
  show(request, Kind::kValue, 0, tokens, [](int) { return 1.0f; });
  show(request, Kind::kQuery, 0, tokens, [](int) { return 1.0f; });
  show(request, Kind::kQuery, 1, tokens, [](int) { return 0.0f; });
}

/// Of keys [first, count) in the geometric series of `count` keys.
double share_from(int first, int count) {
  if (first >= count) return 0;
  const double r = std::exp(-0.5);
  return (std::pow(r, first) - std::pow(r, count)) / (1 - std::pow(r, count));
}

}  // namespace

TEST_CASE("what is flushed of a geometric series, in closed form") {
  constexpr int kTokens = 48;
  KeptRequest request(kShape);
  fill(request, kTokens);
  AttentionProbabilities probabilities(kShape);
  ThreadPool pool(2);
  probabilities.add(request, pool);
  CHECK(probabilities.requests() == 1);
  CHECK(probabilities.longest() == kTokens);
  const auto heads = probabilities.heads();
  REQUIRE(heads.size() == 2);
  // E4M3 makes 0 of everything up to 2^-10, half of its smallest number: exp(-t / 2) from t = 14 on at scale 1, and
  // with 2^-8 what is at most 2^-18, from t = 25 on. 16 queries see 3, 6, ... 48 keys.
  double unit_mass = 0, chosen_mass = 0;
  int entries = 0, unit = 0, chosen = 0;
  for (int keys = 3; keys <= kTokens; keys += 3) {
    entries += keys;
    unit += std::max(0, keys - 14);
    chosen += std::max(0, keys - 25);
    unit_mass += share_from(14, keys) / 16;
    chosen_mass += share_from(25, keys) / 16;
  }
  CHECK(heads[0].queries == 16);
  CHECK(heads[0].entries == entries);
  CHECK(heads[0].largest == 1);
  CHECK(heads[0].unit.entries == doctest::Approx(static_cast<double>(unit) / entries));
  CHECK(heads[0].chosen.entries == doctest::Approx(static_cast<double>(chosen) / entries));
  CHECK(heads[0].unit.mass == doctest::Approx(unit_mass));
  CHECK(heads[0].chosen.mass == doctest::Approx(chosen_mass));
  CHECK(heads[1].head == 1);
  CHECK(heads[1].largest == 1);
  CHECK(heads[1].unit.entries == 0);
  CHECK(heads[1].unit.mass == 0);
  const HeadProbabilities all = all_heads(heads);
  CHECK(all.queries == 32);
  CHECK(all.unit.mass == doctest::Approx(unit_mass / 2));
  CHECK(all.chosen.entries == doctest::Approx(static_cast<double>(chosen) / (2 * entries)));
}

TEST_CASE("a KV head that two ranks hold is kept once; a request is forgotten before the next") {
  KeptRequest once(kShape), twice(kShape);
  fill(once, 40);
  fill(twice, 40);
  std::thread([&] { show(twice, Kind::kKey, 0, 40, [](int) { return 7.0f; }); }).join();
  CHECK(twice.tokens() == 40);
  CHECK(twice.values(Kind::kKey, 0, 0) == once.values(Kind::kKey, 0, 0));
  twice.forget();
  CHECK(twice.tokens() == 0);
  std::thread([&] { fill(twice, 600); }).join();
  CHECK(twice.tokens() == KeptRequest::kMaxTokens);
  CHECK(twice.values(Kind::kKey, 0, 0)[3] == -1.5f);
}

TEST_CASE("sampled positions: evenly spread, the last one among them") {
  CHECK(sampled_positions(0).empty());
  CHECK(sampled_positions(3) == std::vector<int>{0, 1, 2});
  const auto positions = sampled_positions(512);
  REQUIRE(positions.size() == 16);
  CHECK(positions.front() == 31);
  CHECK(positions.back() == 511);
}
