#include "report/summary.h"

#include <doctest/doctest.h>

#include <cmath>

#include "base/error.h"
#include "report/metrics.h"

using namespace qwenbench;
using doctest::Approx;
using report::RequestRecord;
using report::VariantResult;

namespace {

RequestRecord request(int trial, double ttft, std::vector<double> itls) {
  RequestRecord r;
  r.trial = trial;
  r.ttft = ttft;
  r.output_len = static_cast<int>(itls.size()) + 1;
  r.itls = std::move(itls);
  r.input_len = 10;
  r.input_vision_len = 4;
  return r;
}

report::Trial trial(int index, double duration) {
  report::Trial t;
  t.index = index;
  t.duration = duration;
  t.decode_tokens = 30;
  t.decode_seconds = 0.5;
  t.prefix_queried_tokens = 100;
  t.prefix_hit_tokens = 25 * (index + 1);
  t.bandwidth_share = 0.5;
  return t;
}

/// Two trials: {0.1 s + 2 gaps, 0.3 s + no gap}, {0.2 s + 1 gap, one failed}.
VariantResult example() {
  VariantResult v;
  v.trials = {trial(0, 2.0), trial(1, 3.0)};
  v.requests = {request(0, 0.1, {0.01, 0.03}), request(0, 0.3, {}), request(1, 0.2, {0.05}), request(1, 9, {9})};
  v.requests.back().error = "aborted";
  return v;
}

}  // namespace

TEST_CASE("timing summary by hand") {
  VariantResult v = example();
  report::summarize(v, {});
  const report::TimingSummary& s = v.summary;
  CHECK(s.duration == 5);
  CHECK(s.completed == 3);
  CHECK(s.failed == 1);
  CHECK(s.total_output_tokens == 6);
  CHECK(s.total_input_tokens == 30);
  CHECK(s.total_input_vision_tokens == 12);
  CHECK(*s.request_throughput == Approx(3.0 / 5));
  CHECK(*s.output_throughput == Approx(6.0 / 5));
  CHECK(*s.total_token_throughput == Approx(36.0 / 5));
  CHECK(*s.decode_throughput == Approx(60.0));
  CHECK(*s.kv_cache_hit_rate == Approx(75.0 / 200));
  CHECK(*s.bandwidth_share == Approx(0.5));
  CHECK_FALSE(s.request_goodput);
  CHECK_FALSE(s.comm_share);
  CHECK(s.ttft.n == 3);
  CHECK(*s.ttft.mean == Approx(200));
  CHECK(*s.ttft.std == Approx(100));
  CHECK(*s.ttft.p90 == Approx(280));  // 200 + 0.8 * 100
  CHECK(s.itl.n == 3);
  CHECK(*s.itl.median == Approx(30));
  CHECK(s.tpot.n == 2);  // one token has no time per output token
  CHECK(*s.tpot.mean == Approx((20.0 + 50.0) / 2));
  CHECK(*s.e2el.mean == Approx((140.0 + 300.0 + 250.0) / 3));
  CHECK(*v.trials[0].summary.output_throughput == Approx(4.0 / 2));
  CHECK(v.trials[1].summary.failed == 1);
  CHECK(*v.trials[1].summary.ttft.median == Approx(200));
  CHECK_FALSE(v.trials[1].summary.ttft.std);
}

TEST_CASE("prefix cache: TTFT on a hit and on a miss") {
  VariantResult v = example();
  v.requests[0].cached_tokens = 16;
  v.requests[1].cached_tokens = 0;
  v.requests[2].cached_tokens = 8;
  report::summarize(v, {});
  REQUIRE(v.summary.prefix);
  CHECK(*v.summary.prefix->ttft_hit.median == Approx(150));
  CHECK(v.summary.prefix->ttft_hit.n == 2);
  CHECK(*v.summary.prefix->ttft_miss.median == Approx(300));
  CHECK(*v.summary.prefix->request_hit_rate == Approx(2.0 / 3));
  CHECK(*v.trials[1].summary.prefix->request_hit_rate == 1);
  CHECK(*report::metric_value(v, "median_ttft_hit_ms") == Approx(150));
  for (report::Trial& t : v.trials) t.prefix_queried_tokens = 0;  // no prefix caching
  report::summarize(v, {});
  CHECK_FALSE(v.summary.prefix);
  CHECK_FALSE(report::metric_value(v, "median_ttft_hit_ms"));
}

TEST_CASE("goodput: every limit on requests, and only those") {
  VariantResult v = example();
  report::summarize(v, std::vector<report::SloLimit>{{"ttft_ms", "p50", 250, {}}, {"output_throughput", "", {}, 1e9}});
  CHECK(*v.summary.request_goodput == Approx(2.0 / 5));
  report::summarize(v, std::vector<report::SloLimit>{{"ttft_ms", "", 250, {}}, {"tpot_ms", "", 30, {}}});
  CHECK(*v.summary.request_goodput == Approx(1.0 / 5));
}

TEST_CASE("p99 needs a hundred samples, and nothing is made up without any") {
  CHECK_FALSE(report::distribution(std::vector<double>(99, 1.0)).p99);
  CHECK(report::distribution(std::vector<double>(100, 1.0)).p99);
  const report::Distribution none = report::distribution({});
  CHECK(none.n == 0);
  CHECK_FALSE(none.mean);
  VariantResult failed;
  failed.trials = {trial(0, 1.0)};
  failed.requests = {request(0, 1, {})};
  failed.requests[0].error = "x";
  report::summarize(failed, {});
  CHECK(failed.summary.failed == 1);
  CHECK_FALSE(failed.summary.ttft.median);
  CHECK(*failed.summary.output_throughput == 0);
}

TEST_CASE("metrics by name") {
  VariantResult v = example();
  report::summarize(v, {});
  CHECK(*report::metric_value(v, "ttft_ms") == Approx(200));
  CHECK(*report::metric_value(v, "ttft_ms", "mean") == Approx(200));
  CHECK(*report::metric_value(v, "median_itl_ms") == Approx(30));
  CHECK_FALSE(report::metric_value(v, "ttft_ms", "p99"));
  CHECK_FALSE(report::metric_value(v, "kld_mean"));
  CHECK(report::metric_info("output_throughput").lower_is_better == false);
  CHECK_THROWS_WITH_AS(report::metric_value(v, "output_througput"),
                       "unknown metric \"output_througput\"; do you mean \"output_throughput\"?", InputError);
  CHECK_THROWS_AS(report::metric_value(v, "preemptions", "p50"), InputError);
}

TEST_CASE("slo: limits are inclusive; what was not measured does not pass") {
  std::vector<VariantResult> variants{example()};
  report::summarize(variants[0], {});
  variants[0].name = "a";
  const std::vector<report::SloLimit> slo{{"ttft_ms", "p50", 200, {}},
                                          {"ttft_ms", "p50", 199.9, {}},
                                          {"ttft_ms", "p99", 1e9, {}},
                                          {"output_throughput", "", {}, 1.2},
                                          {"output_throughput", "", {}, 1.3}};
  const std::vector<report::SloResult> results = report::check_slo(variants, slo);
  REQUIRE(results.size() == 5);
  CHECK(results[0].pass);
  CHECK_FALSE(results[1].pass);
  CHECK_FALSE(results[2].pass);
  CHECK(results[3].pass);
  CHECK_FALSE(results[4].pass);
}

TEST_CASE("quality summary by hand") {
  report::QualitySamples samples;
  samples.reference = "reference";
  const auto add = [&](const char* task, bool image, std::vector<float> kld, bool correct) {
    report::QualityRequest r;
    r.task = task;
    r.has_image = image;
    r.n_tokens = static_cast<std::int64_t>(kld.size());
    for (const float k : kld) {
      r.kld_sum += k;
      samples.kld.push_back(k);
      samples.delta_p.push_back(-k);
      samples.same_top1.push_back(k < 0.25f);
      samples.position.push_back(static_cast<int>(500 * samples.position.size()));
      r.top1_matches += k < 0.25f;
      r.delta_p_sum -= k;
      r.delta_p_square_sum += double(k) * k;
      r.ln_p_reference_sum -= 1;
      r.ln_p_sum -= 1.5;
    }
    r.correct = correct;
    r.greedy_tokens = 10;
    r.exact_match_tokens = correct ? 10 : 4;
    samples.requests.push_back(r);
  };
  add("recall", false, {0.25f, 0.5f}, false);
  add("vision", true, {0.125f}, true);
  add("vision", true, {0.0f, 0.125f}, true);
  const report::Quality q = report::summarize_quality(samples);
  CHECK(q.n_tokens == 5);
  CHECK(*q.kld.mean == Approx(0.2));
  // Residuals 0.75 - 0.4, 0.125 - 0.2, 0.125 - 0.4; sqrt(3/2 sum of squares) / 5.
  CHECK(*q.kld.mean_stderr == Approx(std::sqrt(1.5 * (0.35 * 0.35 + 0.075 * 0.075 + 0.275 * 0.275)) / 5));
  CHECK(*q.kld.median == Approx(0.125));
  CHECK(*q.kld.max == Approx(0.5));
  CHECK(*q.ppl == Approx(std::exp(1.5)));
  CHECK(*q.ppl_reference == Approx(std::exp(1.0)));
  CHECK(*q.ln_ppl_ratio == Approx(0.5));
  CHECK(*q.same_top1 == Approx(0.6));
  CHECK(*q.delta_p.mean == Approx(-0.2));
  CHECK(*q.delta_p.rms == Approx(std::sqrt((0.0625 + 0.25 + 2 * 0.015625) / 5)));
  CHECK(*q.delta_p.min == Approx(-0.5));
  CHECK(q.first_divergence.n == 3);
  CHECK(q.first_divergence.diverged == 1);
  CHECK(*q.first_divergence.median_first_divergence == 4);
  CHECK(*q.first_divergence.mean_exact_match_tokens == Approx(8));
  REQUIRE(q.by_position.size() == 3);  // 0, 500 | 1000 | 1500, 2000
  CHECK(q.by_position[0].n_tokens == 2);
  CHECK(q.by_position[1].from == 512);
  CHECK(*q.by_position[0].kld_mean == Approx(0.375));
  CHECK(q.by_position[2].from == 1024);
  CHECK(q.by_position[2].n_tokens == 2);
  REQUIRE(q.by_input.size() == 2);
  CHECK(*q.by_input[1].kld_mean == Approx(0.25 / 3));
  REQUIRE(q.tasks.size() == 3);
  CHECK(q.tasks[2].name == "all");
  CHECK(*q.tasks[2].accuracy == Approx(2.0 / 3));
  samples.kld.pop_back();
  CHECK_THROWS_AS(report::summarize_quality(samples), std::invalid_argument);
}

TEST_CASE("quality summary: NaN gives null, not a number") {
  report::QualitySamples samples;
  report::QualityRequest r;
  r.n_tokens = 1;
  r.kld_sum = NAN;
  samples.requests = {r, r};
  samples.kld = {NAN, 1};
  samples.delta_p = {0, 0};
  samples.same_top1 = {1, 1};
  samples.position = {0, 1};
  const report::Quality q = report::summarize_quality(samples);
  CHECK_FALSE(q.kld.mean);
  CHECK_FALSE(q.kld.p99);
  CHECK(q.delta_p.median);
}
