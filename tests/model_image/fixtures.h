#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "model/image_decode.h"
#include "model/image_processor.h"

namespace qwenbench::model {

inline const std::string kImageFixtures = "model_image/fixtures/";

inline nlohmann::json image_fixture(const std::string& name) {
  return nlohmann::json::parse(read_file(kImageFixtures + name));
}

inline std::vector<std::uint8_t> bytes_of_file(const std::string& name) {
  const std::string content = read_file(kImageFixtures + name);
  return {content.begin(), content.end()};
}

inline RgbImage decode_bytes(const std::vector<std::uint8_t>& bytes) {
  return decode_image(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.png");
}

/// Largest difference of two byte arrays, 999 where their sizes differ.
inline int largest_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  if (a.size() != b.size()) return 999;
  int worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(int{a[i]} - int{b[i]}));
  return worst;
}

inline ImageProcessorConfig fixture_config(const nlohmann::json& cases) {
  ImageProcessorConfig config;
  config.min_pixels = cases["min_pixels"];
  config.max_pixels = cases["max_pixels"];
  return config;
}

template <class ErrorType, class Function>
std::string message_of(const Function& function) {
  try {
    function();
  } catch (const ErrorType& error) {
    return error.what();
  }
  return "";
}

}  // namespace qwenbench::model
