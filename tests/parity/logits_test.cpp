// Logits against Hugging Face Transformers in fp32, at every position.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/pictures.h"
#include "parity/engine_runs.h"
#include "parity/synthetic_checkpoint.h"

using namespace qwenbench;
using namespace qwenbench::parity;

namespace {

constexpr double kTolerance = 1e-4;  // relative L2, each position

void check_case(const std::string& model_name, const std::string& name, const std::string& pictures_of = "") {
  CAPTURE(model_name);
  CAPTURE(name);
  const Case c = load_case(name, pictures_of);
  const auto model = load_model(model_name);
  const auto logits = forward(*model, c);
  REQUIRE(logits.size() == c.logits.size());
  const double direct = worst_error(c, logits);
  CHECK(direct <= kTolerance);

  engine::Session session(model, session_options());
  const auto scored = score(*model, session, c);
  REQUIRE(scored.size() == c.logits.size() - static_cast<std::size_t>(first_scored(c)) * c.vocab);
  const double through_session = worst_error(c, scored, first_scored(c));
  CHECK(through_session <= kTolerance);
  MESSAGE(model_name << " " << name << ": worst relative L2 error " << direct << ", session " << through_session);
}

}  // namespace

TEST_CASE("logits equal Hugging Face's: ViT head 64, tied embeddings") {
  for (const std::string name : {"text", "one_image", "two_images", "long_text"}) check_case("a", "a/" + name);
}

TEST_CASE("logits equal Hugging Face's: ViT head 72, untied, one KV head, ragged sizes") {
  for (const std::string name : {"text", "one_image", "two_images", "long_text"}) check_case("b", "b/" + name);
}

TEST_CASE("logits of quantized forms equal Hugging Face's on the dequantized weights") {
  for (const std::string form : {"a_pack", "a_awq", "a_fp8"}) check_case(form, form + "/two_images", "a/two_images");
  check_case("b_fp8", "b_fp8/two_images", "b/two_images");  // blocks that are cut at the edge
}

TEST_CASE("a quantized checkpoint is not the plain one") {
  // The forms differ by far more than the tolerance, so that none of the checks above can pass on the wrong weights.
  const Case plain = load_case("a/two_images");
  for (const std::string form : {"a_pack", "a_awq", "a_fp8"}) {
    CHECK(worst_error(plain, load_case(form + "/two_images").logits) > 50 * kTolerance);
  }
}

TEST_CASE("positions equal Hugging Face's get_rope_index") {
  for (const std::string name : {"a/one_image", "a/two_images", "b/two_images"}) {
    const Case c = load_case(name);
    const auto config = model::read_model_config(checkpoint(name.substr(0, 1)));
    const auto pictures = engine::find_pictures(c.ids, c.images, config, "test");
    const engine::RopePositions all(c.length(), pictures);
    const engine::RopePositions prompt(first_scored(c), pictures);  // the rest is as decoded
    for (int i = 0; i < c.length(); ++i) {
      CHECK(all.at(i) == c.positions[i]);
      CHECK(prompt.at(i) == c.positions[i]);
    }
  }
}
