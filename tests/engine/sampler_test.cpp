#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <boost/math/distributions/chi_squared.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

nlohmann::json fixture() { return nlohmann::json::parse(std::ifstream("engine/fixtures/sampling.json")); }

/// Probability of a statistic at least as large, if tokens were drawn from `all`.
double chi_square_p(const std::vector<Candidate>& all, const std::vector<int>& counts, int draws) {
  double statistic = 0;
  for (const auto& candidate : all) {
    const double expected = candidate.probability * draws;
    statistic += std::pow(counts[candidate.token] - expected, 2) / expected;
  }
  const boost::math::chi_squared distribution(static_cast<double>(all.size()) - 1);
  return boost::math::cdf(boost::math::complement(distribution, statistic));
}

}  // namespace

TEST_CASE("greedy takes the largest logit, the lowest id among equals") {
  CHECK(greedy(std::vector<float>{1, 3, 2, 3}) == 1);
  std::vector<float> many(1000, -5.0f);
  many[999] = many[37] = many[38] = -1.0f;
  CHECK(greedy(many) == 37);
  CHECK(sample(many, {.temperature = 0}, 0) == 37);
  CHECK(sample(many, {.temperature = 1e-6, .seed = 9}, 3) == 37);
}

TEST_CASE("logits that are no numbers are an error, not a token") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(greedy(std::vector<float>(20, nan)), DeviceError);
  CHECK_THROWS_AS(greedy(std::vector<float>{0, infinity}), DeviceError);
  CHECK_THROWS_AS(greedy(std::vector<float>{}), DeviceError);
  CHECK_THROWS_AS(sample(std::vector<float>(20, nan), {.temperature = 1}, 0), DeviceError);
  CHECK(greedy(std::vector<float>{-infinity, 1, -infinity}) == 1);
}

TEST_CASE("random numbers are NumPy's Philox") {
  const auto cases = fixture().at("uniform");
  REQUIRE(cases.size() == 20);
  for (const auto& test : cases) {
    CHECK(uniform(test.at("seed"), test.at("index")) == test.at("value").get<double>());
  }
}

TEST_CASE("temperature, top-k and top-p leave what the NumPy reference leaves") {
  const auto cases = fixture().at("distributions");
  REQUIRE(cases.size() == 18);
  for (const auto& test : cases) {
    workload::SamplingOptions options;
    options.temperature = test.at("temperature");
    options.top_k = test.at("top_k");
    options.top_p = test.at("top_p");
    CAPTURE(options.temperature);
    CAPTURE(options.top_k);
    CAPTURE(options.top_p);
    auto all = candidates(test.at("logits").get<std::vector<float>>(), options);
    std::erase_if(all, [](const auto& candidate) { return candidate.probability == 0; });
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
    REQUIRE(all.size() == test.at("tokens").size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(all[i].token == test.at("tokens")[i].get<int>());
      CHECK(all[i].probability == doctest::Approx(test.at("probabilities")[i].get<double>()).epsilon(1e-12));
    }
  }
}

TEST_CASE("samples follow the distribution (chi-square, fixed seed)") {
  const std::vector<float> logits{0.3f, -1.2f, 2.0f, 1.1f, 0.0f, -0.4f, 1.9f, 0.7f};
  for (const auto& options : {workload::SamplingOptions{.temperature = 1.3, .seed = 11},
                              workload::SamplingOptions{.temperature = 0.9, .top_p = 0.85, .top_k = 6, .seed = 12}}) {
    constexpr int kDraws = 20000;
    std::vector<int> by_index(logits.size()), by_seed(logits.size());
    for (int i = 0; i < kDraws; ++i) {
      ++by_index[sample(logits, options, i)];
      auto other = options;
      other.seed = static_cast<std::uint64_t>(i);
      ++by_seed[sample(logits, other, 5)];
    }
    const auto all = candidates(logits, options);
    CHECK(chi_square_p(all, by_index, kDraws) > 0.001);
    CHECK(chi_square_p(all, by_seed, kDraws) > 0.001);
    int drawn = 0;
    for (const auto& candidate : all) drawn += by_index[candidate.token];
    CHECK(drawn == kDraws);  // nothing outside the candidates
  }
}
