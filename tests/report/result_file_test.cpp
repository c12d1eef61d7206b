#include "report/result_file.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "report/sample_result.h"

using namespace qwenbench;
using nlohmann::json;

TEST_CASE("result file: what is written is read") {
  const report::Result before = sample_result();
  const std::string text = report::to_json(before);
  const report::Result after = report::from_json(text, "memory");
  CHECK(report::to_json(after) == text);
  CHECK(after.variants.at(1).requests.size() == before.variants[1].requests.size());
  CHECK(after.variants[1].trials.at(2).decode_seconds == before.variants[1].trials[2].decode_seconds);
  CHECK(after.variants[1].trials[2].duration == before.variants[1].trials[2].duration);
  CHECK(after.variants[2].kv_scales.layers.at(0).k_scale == std::vector<double>{0.25, 0.5});
  CHECK(after.variants[2].kv_scales.layers[0].v_scale == std::vector<double>{0.125});
  CHECK(after.variants[1].quality->requests.at(5).kld_sum == before.variants[1].quality->requests[5].kld_sum);
  CHECK(after.variants[1].quality->requests[5].correct == before.variants[1].quality->requests[5].correct);
  CHECK(std::isinf(after.workload.request_rate));
  CHECK(after.verdict->status == before.verdict->status);
  CHECK(after.comparisons.size() == before.comparisons.size());
  CHECK(json::parse(after.profile_json) == json::parse(before.profile_json));
}

TEST_CASE("result file: with dummy weights quality and verdict are null") {
  report::Result result = sample_result();
  result.engine.weights = "dummy";
  const json written = json::parse(report::to_json(result));
  CHECK(written["verdict"].is_null());
  for (const json& variant : written["variants"]) CHECK(variant["quality"].is_null());
}

TEST_CASE("result file: what is no number is null, and said") {
  report::Result result = sample_result();
  result.variants[1].quality->kld.mean = NAN;
  result.variants[1].quality->requests[2].kld_sum = INFINITY;
  const json written = json::parse(report::to_json(result));
  CHECK(written["variants"][1]["quality"]["kld"]["mean"].is_null());
  CHECK(written["warnings"].back()["code"] == "NOT_FINITE");
  const report::Result read = report::from_json(written.dump(), "memory");
  CHECK(std::isnan(read.variants[1].quality->requests[2].kld_sum));
  result.variants[0].trials[0].duration = NAN;
  CHECK_THROWS_AS(report::to_json(result), std::invalid_argument);
}

TEST_CASE("result file: a text that ends inside a character is written") {
  report::Result result = sample_result();
  result.variants[0].requests[0].text = "caf\xc3";
  CHECK(report::from_json(report::to_json(result), "memory").variants[0].requests[0].text == "caf\xef\xbf\xbd");
}

TEST_CASE("result file: bad input is refused in one line that names file and place") {
  const std::string text = report::to_json(sample_result());
  const auto refuses = [](const std::string& bad, const std::string& part) {
    try {
      report::from_json(bad, "old.json");
      FAIL("accepted");
    } catch (const InputError& error) {
      const std::string what = error.what();
      CAPTURE(what);
      CHECK(what.starts_with("old.json"));
      CHECK(what.find(part) != std::string::npos);
      CHECK(what.find('\n') == std::string::npos);
    }
  };
  refuses("", "cut short");
  refuses(text.substr(0, text.size() / 2), "cut short");
  refuses("[1, 2]", "no result file");
  refuses("{\"foo\": 1}", "no result file");
  const auto with = [&](auto change) {
    json document = json::parse(text);
    change(document);
    return document.dump();
  };
  refuses(with([](json& d) { d["schema_version"] = report::kSchemaVersion + 1; }), "newer");
  refuses(with([](json& d) { d["schema_version"] = 0; }), "never existed");
  refuses(with([](json& d) { d["variants"][1].erase("name"); }), "variants[1].name: missing");
  refuses(with([](json& d) { d["variants"][0]["trials"][0]["duration"] = nullptr; }), "trials[0].duration");
  refuses(with([](json& d) { d["variants"][0]["requests"][3]["itls"][1] = "x"; }), "requests[3].itls[1]");
  refuses(with([](json& d) { d["variants"][0]["completed"] = 1.5; }), "whole number");
  refuses(with([](json& d) { d["engine"]["tp_size"] = 1LL << 40; }), "out of range");
  refuses(with([](json& d) { d["environment"] = 3; }), "environment: an object");
  refuses(with([](json& d) { d["variants"][1]["quality"]["requests"]["kld_sum"].erase(0); }), "differ in length");
  refuses(with([](json& d) { d["workload"]["request_rate"] = "fast"; }), "inf");
  std::string nan = text;
  nan.replace(nan.find("\"burstiness\": 1.0") + 14, 3, "NaN");
  refuses(nan, "cut short");
  std::string infinite = text;
  infinite.replace(infinite.find("\"burstiness\": 1.0") + 14, 3, "1e999");
  refuses(infinite, "cut short");
}

TEST_CASE("result file: unknown members are ignored, optional ones may be missing") {
  json document = json::parse(report::to_json(sample_result()));
  document["from_the_future"] = 1;
  document["variants"][0].erase("comm_share");
  CHECK_FALSE(report::from_json(document.dump(), "memory").variants[0].summary.comm_share);
}

TEST_CASE("result file: on disk") {
  const auto folder = std::filesystem::temp_directory_path() / "qwenbench-result-file-test";
  std::filesystem::remove_all(folder);
  report::write_result(folder / "deep/result.json", sample_result());
  CHECK(report::read_result(folder / "deep/result.json").benchmark_id == "tiny-vl-20250101-120000");
  CHECK_THROWS_AS(report::read_result(folder / "none.json"), InputError);
  CHECK_THROWS_AS(report::write_result("/proc/none/result.json", sample_result()), InputError);
  std::filesystem::remove_all(folder);
}
