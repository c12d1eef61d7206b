// `qwenbench calibrate-kv` as a user starts it, on the embedded model.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tools/process.h"

using qwenbench::test::run_process;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("qwenbench-calibrate-" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

const std::string kCommand = "qwenbench calibrate-kv --profile tiny-vl --num-samples 8 -q ";

}  // namespace

TEST_CASE("calibrate-kv: a summary, a scale file, exports; the same bits on 1 and 2 ranks") {
  const Folder folder;
  const auto one =
      run_process(kCommand + "--granularity head --export compressed-tensors,sglang -o " + (folder / "a.json"));
  CHECK(one.code == 0);
  CHECK(one.out.find("No layer needs a scale") != std::string::npos);
  CHECK(one.out.find("image tokens: |K| to") != std::string::npos);
  CHECK(one.err.find("scales written to") != std::string::npos);
  const auto two = run_process(kCommand + "--granularity head --tensor-parallel-size 2 -o " + (folder / "b.json"));
  CHECK(two.code == 0);
  const std::string file = text_of(folder / "a.json");
  CHECK(file.size() > 1000);
  CHECK(file == text_of(folder / "b.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "a.json.partial"));
  for (const char* name : {"a.json", "a-compressed-tensors", "a-sglang.json"}) {
    const auto check = run_process("qwenbench calibrate-kv --profile tiny-vl --check " + (folder / name));
    CAPTURE(check.err);
    CHECK(check.code == 0);
    CHECK(check.out.find("usable for") != std::string::npos);
  }
  // Scales of another model are refused: the profile's is the 4-bit form.
  const auto other = run_process(
      "qwenbench calibrate-kv --profile tiny-vl --model datasets/models/qwen3-vl-tiny --check " + (folder / "a.json"));
  CHECK(other.code == 2);
  CHECK(other.err.find("of another model") != std::string::npos);
}

TEST_CASE("calibrate-kv: an overlay runs with the scales that it carries, and says the same as the scale file") {
  const Folder folder;
  CHECK(run_process(kCommand + "--export compressed-tensors -o " + (folder / "s.json")).code == 0);
  const std::string common =
      " --num-prompts 1 --max-tokens 2 --trials 1 --set workload.warmup_prompts=0 --set quality.num_samples=3 -q "
      "--set variants.calibrated=null -o ";
  const auto overlay =
      run_process("qwenbench run --profile tiny-vl --model " + (folder / "s-compressed-tensors") +
                  " --set variants.baseline.kv_scales=checkpoint" + common + (folder / "overlay.json"));
  CAPTURE(overlay.err);
  CHECK(overlay.code == 0);
  const auto file =
      run_process("qwenbench run --profile tiny-vl --set variants.baseline.kv_scales=" + (folder / "s.json") + common +
                  (folder / "file.json"));
  CHECK(file.code == 0);
  const auto score_of = [](const std::string& text) {  // of the second variant
    const auto at = text.rfind("\"kld\"");
    return at == std::string::npos ? std::string("none") : text.substr(at, 200);
  };
  const std::string score = score_of(text_of(folder / "overlay.json"));
  CHECK(score != "none");
  CHECK(score == score_of(text_of(folder / "file.json")));
}

TEST_CASE("calibrate-kv: bad input is one line, exit 2, and no scale file") {
  const Folder folder;
  std::ofstream(folder / "empty.jsonl") << "\n";
  std::ofstream(folder / "long.jsonl") << R"({"id": "long-one", "text": ")" << std::string(40000, 'x') << "\"}\n";
  std::ofstream(folder / "text.jsonl") << R"({"id": "a", "text": "The quick brown fox jumps over the lazy dog."})"
                                       << "\n";
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const auto run =
        run_process("qwenbench calibrate-kv --profile tiny-vl -q -o " + (folder / "s.json") + " " + arguments);
    CAPTURE(run.err);
    CHECK(run.code == 2);
    CHECK(run.out.empty());
    CHECK(run.err.starts_with("qwenbench: error: "));
    CHECK(run.err.find(why) != std::string::npos);
    CHECK(run.err.find('\n') == run.err.size() - 1);
    CHECK_FALSE(std::filesystem::exists(folder / "s.json"));
  };
  refused("--dataset " + (folder / "empty.jsonl"), "holds no requests");
  refused("--dataset " + (folder / "long.jsonl"), "long-one: ");
  refused("--method kl", "calibration.method");
  refused("--export onnx", "onnx");
  refused("--granularity head --export modelopt", "one scale a layer");
  refused("--vllm-dummy", "belong to --method vllm");
  refused("--set load_format=dummy", "dummy weights");
  refused("--cross --dataset " + (folder / "text.jsonl"), "with and without pictures");
  const auto warned = run_process("qwenbench calibrate-kv --profile tiny-vl -q -o " + (folder / "t.json") +
                                  " --dataset " + (folder / "text.jsonl"));
  CHECK(warned.code == 0);
  CHECK(warned.err.find("shows a picture") != std::string::npos);
}

TEST_CASE("calibrate-kv --verify: scales arrive on both sides") {
  const Folder folder;
  const auto run = run_process(kCommand + "--set quality.num_samples=6 --verify -o " + (folder / "s.json"));
  CHECK(run.code == 0);
  CHECK(run.out.find("Scales arrive on both sides of the cache") != std::string::npos);
  // Four times the scales that were written, and these: the outputs are those of the reference, but for subnormals.
  CHECK(run.out.find("\n  chosen scales x 4 ") != std::string::npos);
  CHECK(run.out.find("\n  chosen scales  ") != std::string::npos);
  CHECK(run.out.find("\n  chosen scales / 4 ") != std::string::npos);
  // A method that cuts off on purpose, and attention in FP8: other scales, the same proof.
  for (const char* other : {"--method percentile --percentile 99 ", "--set engine.attention_dtype=fp8 "}) {
    const auto again = run_process(kCommand + other + "--set quality.num_samples=6 --verify -o " + (folder / "t.json"));
    CAPTURE(again.out);
    CHECK(again.code == 0);
  }
}

TEST_CASE("calibrate-kv --check: scales that name no model are used, with one line of warning") {
  const Folder folder;
  std::ofstream(folder / "s.json") << R"({"model_type": "qwen3_vl", "kv_cache": {"dtype": "float8_e4m3fn",
    "scaling_factor": {"0": {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1, "5": 1}}}})";
  const auto run = run_process("qwenbench calibrate-kv --profile tiny-vl --check " + (folder / "s.json"));
  CAPTURE(run.err);
  CHECK(run.code == 0);
  CHECK(run.err.starts_with("warning: "));
  CHECK(run.err.find("names no model_fingerprint") != std::string::npos);
  CHECK(run.err.find('\n') == run.err.size() - 1);
}

TEST_CASE("calibrate-kv: method vllm says what its first step saw; its dummy tokens lack no pictures") {
  const Folder folder;
  const auto first = run_process(kCommand + "--method vllm -o " + (folder / "v.json"));
  CHECK(first.code == 0);
  CHECK(first.out.find("the first step alone: 1 of 8 requests (calibration), 512 tokens") != std::string::npos);
  const auto dummy = run_process(kCommand + "--method vllm --vllm-dummy -o " + (folder / "d.json"));
  CHECK(dummy.code == 0);
  CHECK(dummy.out.find("1 of 1 requests (dummy tokens), 512 tokens") != std::string::npos);
  CHECK(dummy.err.find("picture") == std::string::npos);
  CHECK(text_of(folder / "v.json") != text_of(folder / "d.json"));
}

TEST_CASE("calibrate-kv: attention in FP8 shows its probabilities, the same on 1 and 2 ranks; without it nobody asks") {
  const Folder folder;
  const std::string fp8 = kCommand + "--set engine.attention_dtype=fp8 ";
  const auto one = run_process(fp8 + "-o " + (folder / "a.json"));
  CHECK(one.code == 0);
  CHECK(one.out.find("P~ = exp(S - max S) of FP8 attention, 8 requests") != std::string::npos);
  CHECK(one.out.find("not calibrated: the") != std::string::npos);
  CHECK(run_process(fp8 + "--tensor-parallel-size 2 -o " + (folder / "b.json")).code == 0);
  const std::string file = text_of(folder / "a.json");
  CHECK(file.find("\"attention_probabilities\"") != std::string::npos);
  CHECK(file.find("\"flushed_mass\"") != std::string::npos);
  CHECK(file == text_of(folder / "b.json"));
  const auto plain = run_process(kCommand + "-o " + (folder / "c.json"));
  CHECK(plain.out.find("P~") == std::string::npos);
  CHECK(text_of(folder / "c.json").find("attention_probabilities") == std::string::npos);
}

TEST_CASE("calibrate-kv --cross: a row for every source of scales") {
  const Folder folder;
  const auto run = run_process(
      "qwenbench calibrate-kv --profile tiny-vl --num-samples 12 -q --set quality.num_samples=6 "
      "--cross -o " +
      (folder / "s.json"));
  CHECK(run.code == 0);
  for (const char* row : {"unit", "from text", "from images", "from both"}) {
    CHECK(run.out.find(std::string("\n") + row + " ") != std::string::npos);
  }
}
