// What the cache stores, against torch's conversions, and logits over a BF16 or FP8 cache against Hugging Face's
// attention over fake-quantized K and V.
#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "model/safetensors.h"
#include "parity/engine_runs.h"

using namespace qwenbench;
using namespace qwenbench::parity;
using profile::KvCacheDtype;

namespace {

constexpr int kHeadDim = 128;

template <class T>
std::vector<T> load(const model::SafetensorsFile& file, const char* name) {
  const auto view = file.find(name);
  REQUIRE(view.has_value());
  std::vector<T> out(view->bytes() / sizeof(T));
  std::memcpy(out.data(), view->data, view->bytes());
  return out;
}

/// Keeps what the cache was given, by (kind, layer, head): [tokens, head_dim] in order.
class Recorder : public backend::KvObserver {
 public:
  using Key = std::tuple<Kind, int, int>;

  void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
               std::span<const std::uint8_t>) override {
    const std::lock_guard lock(mutex_);
    auto& out = seen[{kind, layer, head}];
    for (int t = 0; t < tokens; ++t) out.insert(out.end(), values + t * stride, values + t * stride + kHeadDim);
  }

  std::map<Key, std::vector<float>> seen;

 private:
  std::mutex mutex_;
};

float scale_of(const std::vector<model::LayerKvScales>& scales, bool key, int layer, int head) {
  if (scales.empty()) return 1;
  const auto& values = key ? scales[layer].k : scales[layer].v;
  return values.size() == 1 ? values[0] : values[head];
}

std::vector<std::byte> encoded(std::span<const float> values, KvCacheDtype dtype, float scale) {
  std::vector<std::byte> out;
  for (const float value : values) {
    const std::uint16_t rounded = float_to_bf16(value);
    if (dtype == KvCacheDtype::kBFloat16) {
      out.push_back(static_cast<std::byte>(rounded & 0xff));
      out.push_back(static_cast<std::byte>(rounded >> 8));
    } else {
      out.push_back(static_cast<std::byte>(float_to_e4m3(bf16_to_float(rounded) / scale)));
    }
  }
  return out;
}

/// Everything that a session's cache holds for one request, [layer][key, value][head] -> bytes [tokens, head_dim].
struct CacheRun {
  std::map<Recorder::Key, std::vector<float>> given;
  std::map<Recorder::Key, std::vector<std::byte>> stored;
  std::vector<float> logits;
};

CacheRun run_with_cache(const std::shared_ptr<engine::Model>& model, const Case& c, KvCacheDtype dtype) {
  Recorder recorder;
  auto options = session_options(dtype);
  options.kv_scales = c.scales;
  options.observer = &recorder;
  options.engine.max_num_batched_tokens = c.length() - 1;  // two steps: after the first the block table can be seen
  engine::Session session(model, options);
  const auto id = session.submit(forced_request(c));
  CacheRun run;
  std::vector<float> hidden;
  for (const auto& event : session.step().scores) hidden = event.hidden;
  const auto blocks = session.block_table(id);
  REQUIRE(blocks.size() == 1);
  const auto rest = drain(session, id);
  hidden.insert(hidden.end(), rest.begin(), rest.end());
  run.logits = model->logits(hidden, static_cast<int>(hidden.size()) / model->config().text.hidden_size);
  run.given = recorder.seen;
  const int heads = model->config().text.num_kv_heads, local = heads / model->ranks();
  for (const auto& [place, values] : run.given) {
    const auto [kind, layer, head] = place;
    for (int t = 0; t < c.length(); ++t) {
      const auto bytes =
          session.cache(head / local)
              .stored(layer, std::int64_t{blocks[0]} * 64 + t, head % local, kind == Recorder::Kind::kKey);
      auto& out = run.stored[place];
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
  }
  return run;
}

void check_stored_codes(const std::string& name, KvCacheDtype dtype, int ranks) {
  CAPTURE(name);
  CAPTURE(ranks);
  const Case c = load_case(name);
  const auto model = load_model("a", ranks);
  const auto run = run_with_cache(model, c, dtype);
  const auto& text = model->config().text;
  REQUIRE(run.given.size() == static_cast<std::size_t>(2 * text.num_layers * text.num_kv_heads));
  const std::size_t row = kHeadDim * (dtype == KvCacheDtype::kBFloat16 ? 2 : 1);
  for (const auto& [place, values] : run.given) {
    const auto [kind, layer, head] = place;
    CAPTURE(layer);
    CAPTURE(head);
    const bool key = kind == Recorder::Kind::kKey;
    const auto& stored = run.stored.at(place);
    // Equal inputs: exactly what the conversions (checked against torch below) make of what the cache was given.
    CHECK(stored == encoded(values, dtype, scale_of(c.scales, key, layer, head)));
    // And what Hugging Face's own K and V became; the prompt was chosen far from every rounding boundary.
    const auto& codes = c.codes.at((key ? "k_codes." : "v_codes.") + std::to_string(layer));
    const std::size_t size = row * static_cast<std::size_t>(c.length());
    CHECK(std::memcmp(stored.data(), codes.data() + static_cast<std::size_t>(head) * size, size) == 0);
  }
  const double error = worst_error(c, run.logits);
  CHECK(error <= 1e-4);
  MESSAGE(name << ", " << ranks << " rank(s): codes equal, logits error " << error);
}

void check_end_to_end(const std::string& name, KvCacheDtype dtype, double tolerance) {
  CAPTURE(name);
  const Case c = load_case(name, "a/two_images");
  const double error = worst_error(c, forward(*load_model("a"), c, dtype));
  CHECK(error <= tolerance);
  MESSAGE(name << ": worst relative L2 error " << error);
}

}  // namespace

TEST_CASE("conversions of the cache equal torch's") {
  const model::SafetensorsFile file("fixtures/parity/code_vectors.safetensors");
  const auto inputs = load<float>(file, "inputs"), scales = load<float>(file, "scales");
  const auto bf16 = load<std::uint16_t>(file, "bf16");
  const auto fp8 = load<std::uint8_t>(file, "fp8");
  REQUIRE(fp8.size() == inputs.size() * scales.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(inputs[i]);
    CHECK(float_to_bf16(inputs[i]) == bf16[i]);
    for (std::size_t s = 0; s < scales.size(); ++s) {
      CHECK(float_to_e4m3(round_to_bf16(inputs[i]) / scales[s]) == fp8[s * inputs.size() + i]);
    }
  }
}

TEST_CASE("the BF16 cache stores Hugging Face's codes, and attention over them gives its logits") {
  for (const int ranks : {1, 2}) check_stored_codes("a/kv_bf16_codes", KvCacheDtype::kBFloat16, ranks);
}

TEST_CASE("the FP8 cache stores Hugging Face's codes (scales per tensor and per head), and its logits follow") {
  for (const int ranks : {1, 2}) check_stored_codes("a/kv_fp8_codes", KvCacheDtype::kFp8E4M3, ranks);
}

TEST_CASE("end to end with quantized caches") {
  check_end_to_end("a/kv_bf16", KvCacheDtype::kBFloat16, 1e-2);
  check_end_to_end("a/kv_fp8_unit", KvCacheDtype::kFp8E4M3, 5e-2);
  check_end_to_end("a/kv_fp8_scaled", KvCacheDtype::kFp8E4M3, 5e-2);
}
