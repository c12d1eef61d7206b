#include "calibration/scales.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "base/dtype.h"
#include "base/error.h"
#include "calibration/estimators.h"
#include "calibration/fp8_loss.h"
#include "calibration/scale_file.h"

using namespace qwenbench;
using namespace qwenbench::calibration;

namespace {

constexpr int kHeadDim = 4;

model::TextConfig config_of(int layers, int kv_heads) {
  model::TextConfig config;
  config.num_layers = layers;
  config.num_kv_heads = kv_heads;
  config.head_dim = kHeadDim;
  return config;
}

void see(KvStatistics& statistics, Kind kind, int layer, int head, std::vector<float> values) {
  values.resize(kHeadDim, 0.0f);
  statistics.observe(kind, layer, head, values.data(), 1, kHeadDim, {});
}

ScaleSet example() {
  ScaleSet set;
  set.method = "absmax";
  set.granularity = "head";
  set.calibration_set_sha256 = "abc";
  set.samples = 77;
  set.layers = {{{0.1f, 1.0f / 3}, {2.0f}, std::nullopt, std::nullopt},
                {{1e-30f, 5e20f}, {0.25f, 0.5f}, std::vector<float>{0.7f}, 0.00390625f}};
  set.amax = {{149.5f, 896.0f}, {12.0f, 224.0f}};
  return set;
}

/// The example's text with one piece replaced.
std::string text_with(const std::string& from, const std::string& to) {
  std::string text = scale_file_text(example(), "model-1");
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string refusal(const std::string& text, const std::string& fingerprint = "model-1") {
  try {
    parse_scale_file(text, "scales.json", config_of(2, 2), fingerprint);
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("absmax: per tensor and per head, over all ranks; negative values count") {
  KvStatistics statistics(2, 2, kHeadDim);
  see(statistics, Kind::kKey, 0, 0, {1, -448, 3});
  see(statistics, Kind::kKey, 0, 1, {7, 2});
  see(statistics, Kind::kValue, 0, 0, {0.5f});
  see(statistics, Kind::kValue, 0, 1, {-0.25f});
  see(statistics, Kind::kKey, 1, 0, {1000});
  see(statistics, Kind::kKey, 1, 1, {1e-20f});
  see(statistics, Kind::kValue, 1, 0, {3});
  see(statistics, Kind::kValue, 1, 1, {0, 0});
  const ScaleSet tensor = estimate_scales(statistics, {});
  CHECK(tensor.layers[0].k == std::vector<float>{1.0f});
  CHECK(tensor.layers[0].v == std::vector<float>{0.5f / 448});
  CHECK(tensor.layers[1].k == std::vector<float>{1000.0f / 448});
  CHECK(tensor.amax[0].k == 448);
  CHECK(tensor.amax[1].v == 3);
  CHECK(tensor.warnings.empty());
  const ScaleSet head = estimate_scales(statistics, {"absmax", "head"});
  CHECK(head.layers[0].k == std::vector<float>{1.0f, 7.0f / 448});
  CHECK(head.layers[1].v == std::vector<float>{3.0f / 448, 1.0f});  // zeros only
  REQUIRE(head.warnings.size() == 1);
  CHECK(head.warnings[0] == "layer 1: every V of head 1 that calibration saw is 0; its scale is 1");
  CHECK_THROWS_AS(estimate_scales(statistics, {"absmax", "channel"}), InputError);
}

TEST_CASE("the maximum is that of the bf16 values which the cache scales") {
  KvStatistics statistics(1, 1, kHeadDim);
  see(statistics, Kind::kKey, 0, 0, {1.004f});  // rounds up to 1.0078125
  CHECK(statistics.of(Kind::kKey, 0).largest() == 1.0078125f);
}

TEST_CASE("strides, image pads and threads: the same statistics in any order") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> values(64 * 3 * kHeadDim);
  for (float& x : values) x = normal(random);
  KvStatistics one(1, 3, kHeadDim), many(1, 3, kHeadDim);
  const std::vector<std::uint8_t> is_image(64, 1);
  for (int head = 0; head < 3; ++head) {
    one.observe(Kind::kKey, 0, head, values.data() + head * kHeadDim, 64, 3 * kHeadDim, is_image);
  }
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      for (int token = 0; token < 64; ++token) {
        many.observe(Kind::kKey, 0, rank, values.data() + (token * 3 + rank) * kHeadDim, 1, 3 * kHeadDim, {});
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (int head = 0; head < 3; ++head) {
    const MagnitudeHistogram& a = one.of(Kind::kKey, 0, head, Input::kImage);
    const MagnitudeHistogram& b = many.of(Kind::kKey, 0, head, Input::kText);
    CHECK(a.total() == 64 * kHeadDim);
    CHECK(one.of(Kind::kKey, 0, head, Input::kText).total() == 0);
    for (int bin = 0; bin < MagnitudeHistogram::kBins; ++bin) REQUIRE(a.count(bin) == b.count(bin));
  }
}

TEST_CASE("diagnostics equal a round trip of every value") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  KvStatistics statistics(1, 1, kHeadDim);
  for (const float sigma : {0.004f, 1.0f, 300.0f}) {
    MagnitudeHistogram histogram;
    double saturated = 0, subnormal = 0, flushed = 0, signal = 0, noise = 0;
    constexpr int kCount = 20000;
    const float scale = 1.7f;
    for (int i = 0; i < kCount; ++i) {
      const float x = i % 100 == 0 ? 0.0f : normal(random) * sigma;
      histogram.add(&x, 1);
      const float rounded = round_to_bf16(x);
      const float scaled = rounded / scale;
      const float stored = e4m3_to_float(float_to_e4m3(scaled));
      saturated += std::abs(scaled) > 464 ? 1 : 0;
      flushed += rounded != 0 && stored == 0 ? 1 : 0;
      subnormal += stored != 0 && std::abs(stored) < 0x1p-6f ? 1 : 0;
      signal += static_cast<double>(rounded) * rounded;
      const double error = static_cast<double>(stored * scale) - rounded;
      noise += error * error;
    }
    const Fp8Loss loss = fp8_loss(histogram, scale);
    CHECK(loss.saturated == doctest::Approx(saturated / kCount));
    CHECK(loss.flushed == doctest::Approx(flushed / kCount));
    CHECK(loss.subnormal == doctest::Approx(subnormal / kCount));
    CHECK(*loss.snr_db() == doctest::Approx(10 * std::log10(signal / noise)));
  }
}

TEST_CASE("shares and noise of one scale a head") {
  KvStatistics statistics(1, 2, kHeadDim);
  see(statistics, Kind::kValue, 0, 0, {1000, 1, 1, 1});
  see(statistics, Kind::kValue, 0, 1, {100, 1, 1, 1});
  CHECK(fp8_loss(statistics, Kind::kValue, 0, std::vector<float>{1.0f}).saturated == doctest::Approx(1.0 / 8));
  CHECK(fp8_loss(statistics, Kind::kValue, 0, std::vector<float>{4.0f, 0.125f}).saturated == doctest::Approx(1.0 / 8));
  CHECK(fp8_loss(statistics, Kind::kValue, 0, std::vector<float>{4.0f, 4.0f}).saturated == 0);
}

TEST_CASE("NaN and infinity are remembered with the lowest layer") {
  KvStatistics statistics(4, 1, kHeadDim);
  CHECK_FALSE(statistics.not_finite().has_value());
  see(statistics, Kind::kValue, 3, 0, {std::numeric_limits<float>::quiet_NaN()});
  CHECK(statistics.not_finite()->layer == 3);
  see(statistics, Kind::kKey, 1, 0, {-std::numeric_limits<float>::infinity()});
  CHECK(statistics.not_finite()->layer == 1);
  see(statistics, Kind::kKey, 0, 0, {1});
  CHECK(statistics.not_finite()->layer == 1);
  statistics.forget_not_finite();
  CHECK_FALSE(statistics.not_finite().has_value());
}

TEST_CASE("a scale file comes back bit for bit") {
  const ScaleSet written = example();
  const ScaleSet read =
      parse_scale_file(scale_file_text(written, "model-1"), "scales.json", config_of(2, 2), "model-1");
  CHECK(read.method == "absmax");
  CHECK(read.granularity == "head");
  CHECK(read.calibration_set_sha256 == "abc");
  CHECK(read.samples == 77);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    CHECK(read.layers[layer].k == written.layers[layer].k);
    CHECK(read.layers[layer].v == written.layers[layer].v);
    CHECK(read.layers[layer].q == written.layers[layer].q);
    CHECK(read.layers[layer].prob == written.layers[layer].prob);
    CHECK(read.amax[layer].k == written.amax[layer].k);
  }
  CHECK(scales_sha256(read.layers) == scales_sha256(written.layers));
  auto other = written.layers;
  other[1].v[0] = std::nextafter(other[1].v[0], 1.0f);
  CHECK(scales_sha256(other) != scales_sha256(written.layers));
  CHECK(scales_sha256({}).empty());
}

TEST_CASE("every refusal names the file and the layer") {
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": 0")) ==
        "scales.json: layer 0: v_scale is 0; a scale is a finite number above 0");
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": -2.5")).find("layer 0: v_scale is -2.5") !=
        std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": null")).find("layer 0: v_scale is nan") !=
        std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": 1e300")).find("layer 0: v_scale is inf") !=
        std::string::npos);
  // As Python's json module writes them.
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": NaN")) ==
        "scales.json: layer 0: v_scale is nan; a scale is a finite number above 0");
  CHECK(
      refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": [1, Infinity]")).find("layer 0: v_scale of head 1 is inf") !=
      std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": -Infinity")).find("layer 0: v_scale is -inf") !=
        std::string::npos);
  CHECK(refusal(text_with("\"method\": \"absmax\"", R"("method": "a \"NaN\" \\")")) == "accepted");  // not in a text
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": 1e-300")).find("layer 0: v_scale is 0") !=
        std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": \"2\"")).find("layer 0: v_scale is not a number") !=
        std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"w_scale\": 2.0")).find("layer 0: \"v_scale\" is missing") !=
        std::string::npos);
  CHECK(refusal(text_with("\"v_scale\": 2.0", "\"v_scale\": [1, 2, 3]")).find("layer 0: v_scale has 3 values") !=
        std::string::npos);
  CHECK(refusal(text_with("0.00390625", "0")).find("layer 1: prob_scale is 0") != std::string::npos);
  CHECK(refusal(scale_file_text(example(), "model-2")).find("of another model") != std::string::npos);
  CHECK(refusal(text_with("\"schema_version\": 1", "\"schema_version\": 2")).find("newer") != std::string::npos);
  CHECK(refusal(text_with("\"method\"", "\"methods\"")).find("\"method\" is missing") != std::string::npos);
  CHECK(refusal(text_with("\"samples\": 77", "\"samples\": \"x\"")).find("layer 0: samples") != std::string::npos);
  CHECK(refusal("[]").find("is not a JSON object") != std::string::npos);
  const std::string whole = scale_file_text(example(), "model-1");
  CHECK(refusal(whole.substr(0, whole.size() / 2)).find("not valid JSON") != std::string::npos);
  ScaleSet fewer = example();
  fewer.layers.pop_back();
  CHECK(refusal(scale_file_text(fewer, "model-1")).find("layer 1 is missing; the model has 2 layers") !=
        std::string::npos);
  fewer = example();
  fewer.layers.erase(fewer.layers.begin());
  const std::string first_lost = scale_file_text(fewer, "model-1");
  CHECK(refusal(std::string(first_lost).replace(first_lost.find("\"layer\": 0"), 10, "\"layer\": 1"))
            .find("layer 0 is missing; the model has 2 layers") != std::string::npos);
  CHECK(refusal(text_with("\"layer\": 1", "\"layer\": 0")).find("layer 0 is listed twice") != std::string::npos);
  CHECK(refusal(text_with("\"layer\": 1", "\"layer\": -1")).find("layers[1]: \"layer\" is not") != std::string::npos);
  CHECK(refusal(text_with("\"layer\": 1,", "")).find("layers[1]: \"layer\" is missing") != std::string::npos);
  ScaleSet more = example();
  more.layers.push_back(more.layers[0]);
  CHECK(refusal(scale_file_text(more, "model-1")).find("layer 2 is too many") != std::string::npos);
}

TEST_CASE("layers stand in the order of their numbers; files of before the numbers are still read") {
  const std::string text = scale_file_text(example(), "model-1");
  const auto read = [](const std::string& file) {
    return parse_scale_file(file, "scales.json", config_of(2, 2), "model-1").layers;
  };
  std::string swapped = text, without = text;
  swapped.replace(text.find("\"layer\": 0"), 10, "\"layer\": 1");
  swapped.replace(text.rfind("\"layer\": 1"), 10, "\"layer\": 0");
  CHECK(read(swapped)[0].v == example().layers[1].v);
  CHECK(read(swapped)[1].k == example().layers[0].k);
  for (const char* number : {"\"layer\": 0,", "\"layer\": 1,"}) without.replace(without.find(number), 11, "");
  CHECK(read(without)[0].k == example().layers[0].k);
  CHECK(refusal(without.replace(without.find("\"layers\": ["), 11, "\"layers\": [{},")) ==
        "scales.json: lists 3 layers without their numbers; the model has 2");
}
