#include "quality/reduce.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

using namespace qwenbench;
using namespace qwenbench::quality;

namespace {

nlohmann::json fixture() {
  std::ifstream file("quality/fixtures/reductions.json");
  REQUIRE(file.good());
  return nlohmann::json::parse(file);
}

void check(const std::vector<TokenScore>& scores, const nlohmann::json& expected) {
  for (std::size_t row = 0; row < scores.size(); ++row) {
    CAPTURE(row);
    CHECK(scores[row].finite);
    CHECK(scores[row].kld == doctest::Approx(expected["kld"][row].get<double>()).epsilon(1e-9));
    CHECK(std::abs(scores[row].ln_p - expected["ln_p"][row].get<double>()) < 1e-9);
    CHECK(std::abs(scores[row].ln_p_reference - expected["ln_p_reference"][row].get<double>()) < 1e-9);
    CHECK(std::abs(scores[row].delta_p - expected["delta_p"][row].get<double>()) < 1e-12);
    CHECK(scores[row].same_top1 == (expected["same_top1"][row].get<int>() != 0));
    CHECK(scores[row].hit == (expected["hit"][row].get<int>() != 0));
  }
}

}  // namespace

TEST_CASE("reductions agree with SciPy, shifted by 30,000, tied, equal and disjoint rows included") {
  const auto small = fixture()["small"];
  const auto reference = small["reference"].get<std::vector<float>>();
  const auto variant = small["variant"].get<std::vector<float>>();
  const auto targets = small["targets"].get<std::vector<std::int32_t>>();
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    std::vector<TokenScore> scores(targets.size());
    compare_logits(reference, variant, small["vocab"], targets, scores, pool);
    check(scores, small["expected"]);
    CHECK(scores[3].kld == 0);  // equal rows: exactly
    CHECK(scores[3].delta_p == 0);
  }
}

TEST_CASE("a vocabulary of 152k") {
  const auto large = fixture()["large"];
  const int vocab = large["vocab"];
  const auto targets = large["targets"].get<std::vector<std::int32_t>>();
  std::vector<float> reference, variant;
  for (int row = 0; row < 2; ++row) {
    for (std::int64_t i = 0; i < vocab; ++i) {
      reference.push_back(static_cast<float>((i * 7919 + 13 * row) % 10007) / 512.0f);
      variant.push_back(reference.back() + static_cast<float>((i * 31 + row) % 17 - 8) / 64.0f);
    }
  }
  ThreadPool pool(2);
  std::vector<TokenScore> scores(2);
  compare_logits(reference, variant, vocab, targets, scores, pool);
  check(scores, large["expected"]);
}

TEST_CASE("NaN and infinity are told, not averaged") {
  ThreadPool pool(1);
  const std::vector<float> good{1, 2, 3, 1, 2, 3, 1, 2, 3};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> bad{1, nan, 3, 1, 2, 3, 1, 2, std::numeric_limits<float>::infinity()};
  const std::vector<std::int32_t> targets{0, 0, 0};
  std::vector<TokenScore> scores(3);
  compare_logits(good, bad, 3, targets, scores, pool);
  CHECK_FALSE(scores[0].finite);
  CHECK(scores[1].finite);
  CHECK_FALSE(scores[2].finite);
  compare_logits(bad, good, 3, targets, scores, pool);
  CHECK_FALSE(scores[0].finite);
}
