// What Hugging Face Transformers computed: one case of tests/fixtures/parity, made by
// scripts/fixtures/make_parity_fixtures.py.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/weights.h"
#include "workload/request.h"

namespace qwenbench::parity {

struct Case {
  std::vector<std::int32_t> ids;
  std::vector<std::array<std::int32_t, 3>> positions;  // T, H, W
  std::vector<std::shared_ptr<const workload::Image>> images;
  std::vector<int> picture_begin;  // first pad of each picture
  std::vector<float> logits;       // [ids.size(), vocab]
  int vocab = 0;
  std::vector<model::LayerKvScales> scales;             // of a cache case; else empty
  std::map<std::string, std::vector<std::byte>> codes;  // "k_codes.LAYER" -> [kv heads, tokens, head_dim]

  int length() const { return static_cast<int>(ids.size()); }
};

/// fixtures/parity/NAME.safetensors ("a/text"); a case without pixels of its own takes the pictures of `pictures_of`.
Case load_case(const std::string& name, const std::string& pictures_of = "");

/// The largest relative L2 error of one position: rows [first, ...) of the case against `actual`, which starts there.
/// A NaN anywhere is an infinite error.
double worst_error(const Case& expected, std::span<const float> actual, int first = 0);

}  // namespace qwenbench::parity
