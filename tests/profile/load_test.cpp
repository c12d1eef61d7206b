#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "profile/profile.h"

using namespace qwenbench;
using namespace qwenbench::profile;
namespace fs = std::filesystem;

namespace {

Profile parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_profile(text, "p.json", {}, overrides);
}

/// The message of the InputError that `text` gives.
std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

/// A folder of profiles that goes away with the test.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("qwenbench-profile-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
    return (path / name).string();
  }
};

}  // namespace

TEST_CASE("profile: comments, defaults and every kind of value") {
  const Profile p = parse(R"({ // a comment
    "model": "m", "engine": {"max_num_seqs": 4, "limit_mm_per_prompt": {"image": 3}, "pin_memory": "off"},
    "variants": {"r": {"kv_cache_dtype": "auto"}, "b": {"kv_cache_dtype": "fp8", "kv_scales": "checkpoint"}},
    "workload": {"request_rate": 2.5, "input_len": [10, 20], "output_len": 7, "image_sizes": [[64, 96]]},
    "slo": [{"metric": "ttft_ms", "stat": "p50", "max": 1000}]})");
  CHECK(p.name == "profile");
  CHECK(p.engine.max_num_seqs == 4);
  CHECK(p.engine.block_size == 64);
  CHECK(p.engine.limit_mm_per_prompt.at("image") == 3);
  CHECK(p.engine.pin_memory == Switch::kOff);
  REQUIRE(p.variants.size() == 2);
  CHECK(p.variants[0].name == "r");
  CHECK(p.variants[0].kv_cache_dtype == KvCacheDtype::kBFloat16);
  CHECK(p.variants[1].kv_cache_dtype == KvCacheDtype::kFp8E4M3);
  CHECK(p.variants[1].kv_scales == "checkpoint");
  CHECK(p.workload.request_rate == 2.5);
  CHECK(p.workload.random.input_len.min == 10);
  CHECK(p.workload.random.input_len.max == 20);
  CHECK(p.workload.random.output_len.max == 7);
  CHECK(p.workload.random.image_sizes.at(0)[1] == 96);
  REQUIRE(p.slo.size() == 1);
  CHECK(p.slo[0].max == 1000);
  CHECK_FALSE(p.slo[0].min.has_value());
}

TEST_CASE("profile: without variants the standard three") {
  const Profile p = parse(R"({"model": "m"})");
  REQUIRE(p.variants.size() == 3);
  CHECK(p.variants[0].name == "reference");
  CHECK(p.variants[2].kv_scales == "calibrate");
}

TEST_CASE("profile: the resolved text gives the same profile") {
  const Profile p = parse(R"({"model": "m", "name": "x", "workload": {"seed": 9223372036854775807, "input_len": [1, 2]},
    "variants": {"z": {"kv_cache_dtype": "float32"}, "a": {}}, "slo": [{"metric": "ppl", "max": 1.5}]})");
  const std::string text = to_json(p);
  CHECK(to_json(parse(text)) == text);
  CHECK(parse(text).variants[0].name == "z");
  CHECK(parse(text).workload.seed == 9223372036854775807u);
}

TEST_CASE("profile: one line says what is wrong, where, and what was meant") {
  CHECK(error_of(R"({"model": "m", "engine": {"max_num_seq": 4}})") ==
        "p.json: unknown key engine.max_num_seq; did you mean engine.max_num_seqs?");
  CHECK(error_of(R"({"model": "m", "max_num_seqs": 4})") ==
        "p.json: unknown key max_num_seqs; did you mean engine.max_num_seqs?");
  CHECK(error_of(R"({"model": "m", "engin": {}})") == "p.json: unknown key engin; did you mean engine?");
  CHECK(error_of(R"({"model": "m", "workload": {"shared_prefix": {"group": 1}}})") ==
        "p.json: unknown key workload.shared_prefix.group; did you mean workload.shared_prefix.groups?");
  CHECK(error_of(R"({"model": "m", "variants": {"b": {"kv_scale": "unit"}}})") ==
        "p.json: unknown key variants.b.kv_scale; did you mean variants.b.kv_scales?");
  CHECK(error_of(R"({"model": "m", "slo": [{"metric": "x", "maximum": 1}]})").find("slo[0].max") != std::string::npos);
  CHECK(error_of(R"({"model": "m", "engine": {"max_num_seqs": "eight"}})") ==
        "p.json: engine.max_num_seqs must be an integer from 1 to 65536, not \"eight\"");
  CHECK(error_of(R"({"model": "m", "engine": 4})") == "p.json: engine must be an object, not 4");
  CHECK(error_of(R"({"model": "m", "variants": {"b": {"kv_cache_dtype": "int8"}}})") ==
        "p.json: variants.b.kv_cache_dtype must be one of float32, bfloat16, fp8_e4m3, auto, fp8, not \"int8\"");
  CHECK(error_of("{}") == "p.json: names no model: set model (a directory or a hub id)");
  CHECK(error_of("[]") == "p.json: a profile is a JSON object, not []");
  CHECK(error_of("{\"model\": \"m\",}").starts_with("p.json: not valid JSON at line 1, column 15"));
  CHECK(error_of(R"({"model": "m", "model": "n"})") == "p.json: the key \"model\" stands twice in one object");
  CHECK(error_of(std::string(100000, '[')) == "p.json: nested too deeply");
}

TEST_CASE("profile: fields that contradict each other") {
  CHECK(error_of(R"({"model": "m", "engine": {"max_num_seqs": 16, "max_num_batched_tokens": 8}})")
            .find("max_num_seqs (16)") != std::string::npos);
  CHECK(error_of(R"({"model": "m", "engine": {"enable_chunked_prefill": false, "max_model_len": 4096}})")
            .find("enable_chunked_prefill") != std::string::npos);
  CHECK(error_of(R"({"model": "m", "variants": {"r": {"kv_scales": "calibrate"}}})").find("variants.r.kv_scales") !=
        std::string::npos);
  CHECK(error_of(R"({"model": "m", "workload": {"image_share": 0.5}})").find("image_sizes") != std::string::npos);
  CHECK(error_of(R"({"model": "m", "engine": {"limit_mm_per_prompt": {"video": 1}}})").find("video") !=
        std::string::npos);
}

TEST_CASE("profile: --set") {
  const Profile p = parse(R"({"model": "m"})", {"engine.max_num_seqs=8", "workload.request_rate=inf", "model=org/name",
                                                "variants.baseline.kv_scales=checkpoint", "variants.calibrated=null",
                                                "quality.ceiling.kld_mean=0.5", "workload.image_sizes=[[32, 64]]"});
  CHECK(p.engine.max_num_seqs == 8);
  CHECK(p.model == "org/name");
  REQUIRE(p.variants.size() == 2);
  CHECK(p.variants[1].kv_scales == "checkpoint");
  CHECK(p.quality.ceiling.at("kld_mean") == 0.5);
  CHECK(p.workload.random.image_sizes.size() == 1);
  CHECK(error_of(R"({"model": "m"})", {"engine.max_seqs=8"}) ==
        "--set engine.max_seqs=8: unknown key engine.max_seqs; did you mean engine.max_num_seqs?");
  CHECK(error_of(R"({"model": "m"})", {"engine.max_num_seqs"}).find("KEY=VALUE") != std::string::npos);
  CHECK(error_of(R"({"model": "m"})", {"extends=x"}).find("extends") != std::string::npos);
}

TEST_CASE("profile: extends") {
  const Folder folder;
  folder.write("base.json", R"({"model": "m", "engine": {"max_num_seqs": 4, "block_size": 32}, "variants": {"r": {}},
                                "quality": {"ceiling": {"ppl": 3}}})");
  const std::string child = folder.write("child.json", R"({"extends": "base", "engine": {"block_size": 16}, "variants":
      {"b": {"kv_cache_dtype": "fp8"}}, "quality": {"ceiling": {"kld_mean": null}}})");
  const Profile p = load_profile(child, {"engine.max_num_seqs=5"});
  CHECK(p.name == "child");
  CHECK(p.model == "m");
  CHECK(p.engine.block_size == 16);
  CHECK(p.engine.max_num_seqs == 5);
  CHECK(p.variants.size() == 2);
  CHECK(p.quality.ceiling == std::map<std::string, double>{{"ppl", 3}});

  folder.write("loop.json", R"({"extends": "loop2"})");
  folder.write("loop2.json", R"({"extends": "loop"})");
  CHECK_THROWS_WITH_AS(load_profile((folder.path / "loop.json").string(), {}),
                       doctest::Contains("extends runs in a circle"), InputError);
  folder.write("bad.json", R"({"model": "m", "engine": {"x": 1}})");
  const std::string over_bad = folder.write("over.json", R"({"extends": "bad.json"})");
  CHECK_THROWS_WITH_AS(load_profile(over_bad, {}), doctest::Contains("bad.json: unknown key engine.x"), InputError);
}

TEST_CASE("profile: a name that does not exist") {
  CHECK_THROWS_WITH_AS(load_profile("tiny-v", {}), doctest::Contains("did you mean tiny-vl?"), InputError);
  CHECK_THROWS_WITH_AS(load_profile("no/such.json", {}), "no/such.json: no such profile file", InputError);
  CHECK_THROWS_WITH_AS(load_profile("/dev/zero", {}), "/dev/zero: not a file", InputError);
}
