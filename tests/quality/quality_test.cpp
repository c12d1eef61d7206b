#include "quality/quality.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/interrupt.h"
#include "quality/logits_file.h"

using namespace qwenbench;
using namespace qwenbench::quality;
using workload::Request;

namespace {

struct Fixture {
  int vocab = 0;
  std::vector<float> reference, variant;
  std::vector<std::int32_t> targets;
  nlohmann::json expected;
};

Fixture load() {
  std::ifstream file("quality/fixtures/reductions.json");
  const auto small = nlohmann::json::parse(file)["small"];
  return {small["vocab"], small["reference"], small["variant"], small["targets"], small["expected"]};
}

/// Rows of the fixture as "hidden states"; logits() is the identity. Rows arrive from the last to the first, two at
/// once.
class FakeScorer : public Scorer {
 public:
  FakeScorer(const std::vector<float>& rows, int width, std::vector<int> first_row, bool cancelled = false)
      : rows_(rows), width_(width), first_row_(std::move(first_row)), cancelled_(cancelled) {}

  bool score(std::span<const Request> requests, const OnRows& on_rows) override {
    for (std::size_t i = requests.size(); i-- > 0;) {
      const int begin = first_row_[static_cast<std::size_t>(std::stoi(requests[i].id))];
      const int count = scored_rows(requests[i]);
      for (int end = count; end > 0; end -= 2) {
        const int first = std::max(0, end - 2);
        on_rows(i, first,
                std::span(rows_).subspan(static_cast<std::size_t>((begin + first) * width_),
                                         static_cast<std::size_t>((end - first) * width_)));
      }
    }
    return !cancelled_;
  }

 private:
  const std::vector<float>& rows_;
  int width_;
  std::vector<int> first_row_;
  bool cancelled_;
};

const std::vector<int> kFirstRow{0, 3, 7};

/// Three requests over the fixture's 12 rows: 3, 4 and 5 scored tokens.
std::vector<Request> requests_of(const Fixture& f) {
  std::vector<Request> requests(3);
  const std::vector<int> ends{3, 7, 12};
  for (int i = 0; i < 3; ++i) {
    Request& r = requests[static_cast<std::size_t>(i)];
    r.id = std::to_string(i);
    r.prompt.assign(static_cast<std::size_t>(100 * (i + 1)), 5);
    r.forced.assign(2, 1);
    r.score_from = 2;
    r.forced.insert(r.forced.end(), f.targets.begin() + kFirstRow[static_cast<std::size_t>(i)],
                    f.targets.begin() + ends[static_cast<std::size_t>(i)]);
  }
  requests[0].task = "recall";
  requests[2].task = "image_qa";
  requests[2].images.push_back(std::make_shared<workload::Image>());
  return requests;
}

ScoringOptions options_of(const Fixture& f) {
  ScoringOptions options;
  options.hidden_size = f.vocab;
  options.vocab_size = f.vocab;
  options.reference_name = "reference";
  options.logits = [](std::span<const float> hidden, int) { return std::vector<float>(hidden.begin(), hidden.end()); };
  return options;
}

ScoredVariant variant_of(const std::string& name, const std::vector<float>& rows, int width, bool cancelled = false) {
  return {name, [&rows, width, cancelled] { return std::make_unique<FakeScorer>(rows, width, kFirstRow, cancelled); }};
}

double sum(const nlohmann::json& values, int begin, int end) {
  double total = 0;
  for (int i = begin; i < end; ++i) total += values[static_cast<std::size_t>(i)].get<double>();
  return total;
}

void check_samples(const report::QualitySamples& samples, const Fixture& f) {
  const std::vector<int> begins{0, 3, 7, 12};
  REQUIRE(samples.requests.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const report::QualityRequest& r = samples.requests[i];
    const int begin = begins[i], end = begins[i + 1];
    CHECK(r.n_tokens == end - begin);
    CHECK(r.kld_sum == doctest::Approx(sum(f.expected["kld"], begin, end)));
    CHECK(r.ln_p_sum == doctest::Approx(sum(f.expected["ln_p"], begin, end)));
    CHECK(r.ln_p_reference_sum == doctest::Approx(sum(f.expected["ln_p_reference"], begin, end)));
    CHECK(r.delta_p_sum == doctest::Approx(sum(f.expected["delta_p"], begin, end)));
    CHECK(r.top1_matches == static_cast<std::int64_t>(sum(f.expected["same_top1"], begin, end)));
  }
  CHECK(samples.requests[0].correct == true);            // rows 0..2 hit
  CHECK_FALSE(samples.requests[1].correct.has_value());  // no task
  CHECK(samples.requests[2].correct == false);
  CHECK(samples.requests[2].has_image);
  CHECK_FALSE(samples.requests[0].has_image);
  REQUIRE(samples.kld.size() == 12);
  for (std::size_t row = 0; row < 12; ++row) {
    CHECK(samples.kld[row] == doctest::Approx(f.expected["kld"][row].get<double>()).epsilon(1e-5));
    CHECK(int{samples.same_top1[row]} == f.expected["same_top1"][row].get<int>());
  }
  CHECK(samples.position[0] == 102);
  CHECK(samples.position[2] == 104);
  CHECK(samples.position[3] == 202);
  CHECK(samples.position[11] == 306);
}

std::filesystem::path temporary(const std::string& name) {
  return std::filesystem::temp_directory_path() / ("qwenbench_" + std::to_string(::getpid()) + name);
}

}  // namespace

TEST_CASE("sums of every request agree with SciPy, whatever the blocks and tiles") {
  const Fixture f = load();
  const auto requests = requests_of(f);
  ThreadPool pool(2);
  const std::vector<ScoredVariant> variants{variant_of("again", f.reference, f.vocab),
                                            variant_of("baseline", f.variant, f.vocab)};
  for (const std::size_t block_bytes : {std::size_t{1}, std::size_t{2000}, std::size_t{1} << 20}) {
    for (const std::size_t tile_bytes : {std::size_t{1}, std::size_t{1} << 20}) {
      ScoringOptions options = options_of(f);
      options.block_bytes = block_bytes;
      options.tile_bytes = tile_bytes;
      int scored = 0;
      options.on_scored = [&scored] { ++scored; };
      const auto outcome =
          score_variants(requests, variant_of("reference", f.reference, f.vocab), variants, options, pool);
      CHECK_FALSE(outcome.cancelled);
      CHECK(scored == 9);
      REQUIRE(outcome.samples.size() == 2);
      check_samples(outcome.samples[1], f);
      for (const float kld : outcome.samples[0].kld) CHECK(kld == 0);  // the noise floor of equal rows
    }
  }
}

TEST_CASE("blocks bound the memory of hidden states") {
  const auto requests = requests_of(load());  // 3, 4 and 5 rows
  CHECK(blocks_of(requests, 10, 1) == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(blocks_of(requests, 10, 280) == std::vector<std::size_t>{0, 2, 3});
  CHECK(blocks_of(requests, 10, 279) == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(blocks_of(requests, 10, 480) == std::vector<std::size_t>{0, 3});
  CHECK(blocks_of({}, 10, 480) == std::vector<std::size_t>{0});
}

TEST_CASE("cancelled: no variant keeps requests that another lacks") {
  const Fixture f = load();
  const auto requests = requests_of(f);
  ThreadPool pool(1);
  const std::vector<ScoredVariant> variants{variant_of("a", f.variant, f.vocab),
                                            variant_of("b", f.variant, f.vocab, true)};
  const auto outcome =
      score_variants(requests, variant_of("reference", f.reference, f.vocab), variants, options_of(f), pool);
  CHECK(outcome.cancelled);
  CHECK(outcome.samples[0].requests.empty());
  CHECK(outcome.samples[1].requests.empty());
}

TEST_CASE("logits that are not finite name variant and request") {
  const Fixture f = load();
  auto broken = f.variant;
  broken[static_cast<std::size_t>(4 * f.vocab)] = NAN;
  ThreadPool pool(1);
  const std::vector<ScoredVariant> variants{variant_of("baseline", broken, f.vocab)};
  CHECK_THROWS_WITH_AS(
      score_variants(requests_of(f), variant_of("reference", f.reference, f.vocab), variants, options_of(f), pool),
      doctest::Contains("variant baseline: logits of request 1 are not finite at token 203"), InputError);
}

TEST_CASE("logits files: saved, read back and scored against; every mismatch is refused") {
  const Fixture f = load();
  const auto requests = requests_of(f);
  const auto path = temporary(".safetensors");
  for (const std::size_t block_bytes : {std::size_t{1}, std::size_t{1} << 20}) {
    ScoringOptions options = options_of(f);
    options.block_bytes = block_bytes;
    options.tile_bytes = 500;  // two rows
    save_logits(path, requests, variant_of("reference", f.reference, f.vocab), options, {{"variant", "reference"}});
    const auto rows = open_logits(path, requests, f.vocab);
    CHECK(rows->logits(1, 1, 2) ==
          std::vector<float>(f.reference.begin() + 4 * f.vocab, f.reference.begin() + 6 * f.vocab));
    ThreadPool pool(1);
    const std::vector<ScoredVariant> variants{variant_of("baseline", f.variant, f.vocab)};
    const auto outcome = score_against(requests, *rows, variants, options_of(f), pool);
    check_samples(outcome.samples[0], f);
  }
  auto other = requests;
  other[1].prompt[3] = 6;
  CHECK_THROWS_WITH_AS(open_logits(path, other, f.vocab), doctest::Contains("request 1 (1): its input_ids"),
                       InputError);
  other = requests;
  other[2].score_from = 1;
  CHECK_THROWS_WITH_AS(open_logits(path, other, f.vocab),
                       doctest::Contains("request 2 (2): logits must be F32 [6, 61]"), InputError);
  CHECK_THROWS_AS(open_logits(path, requests, f.vocab + 1), InputError);
  other.pop_back();
  CHECK_THROWS_WITH_AS(open_logits(path, other, f.vocab), doctest::Contains("holds 3 requests, the quality set has 2"),
                       InputError);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(save_logits(path, requests, variant_of("reference", f.reference, f.vocab, true), options_of(f), {}),
                  Error);
  CHECK_FALSE(std::filesystem::exists(path));
}
