// Seeded requests for the property tests: few distinct prefixes and pictures, so that sharing is frequent, and the same
// ids with different pictures occur.
#pragma once

#include <random>

#include "engine/fake_executor.h"

namespace qwenbench::engine::fake {

class RandomRequests {
 public:
  explicit RandomRequests(unsigned seed) : random_(seed) {
    for (int i = 0; i < 3; ++i) pictures_.push_back(picture(4, 4, "square " + std::to_string(i)));
    pictures_.push_back(picture(2, 6, "wide"));
    for (int i = 0; i < 3; ++i) prefixes_.push_back(text(between(4, 20)));
  }

  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool one_in(int n) { return between(1, n) == 1; }

  workload::Request next(int longest_prompt, int most_tokens) {
    workload::Request request;
    if (!one_in(3)) request.prompt = prefixes_[between(0, 2)];
    while (one_in(2)) add_picture(request);
    append(request.prompt, text(between(1, 12)));
    if (static_cast<int>(request.prompt.size()) > longest_prompt) {
      request.images.clear();
      request.prompt = text(between(1, longest_prompt));
    }
    if (one_in(4)) {
      request.forced = text(between(1, most_tokens));
      request.score_from = between(0, static_cast<int>(request.forced.size()) - 1);
      return request;
    }
    request.max_tokens = between(1, most_tokens);
    request.ignore_eos = one_in(2);
    if (one_in(4)) request.stop_ids = text(2);
    if (one_in(2)) request.sampling = {0.8, one_in(2) ? 0.9 : 1.0, one_in(2) ? 5 : 0, random_()};
    return request;
  }

 private:
  std::vector<std::int32_t> text(int length) {
    std::vector<std::int32_t> tokens(length);
    for (auto& token : tokens) token = between(0, 37);
    return tokens;
  }
  static void append(std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  void add_picture(workload::Request& request) {
    const auto& image = pictures_[between(0, static_cast<int>(pictures_.size()) - 1)];
    request.images.push_back(image);
    request.prompt.insert(request.prompt.end(), image->num_tokens(), kImagePad);
    if (one_in(2)) request.prompt.push_back(1);
  }

  std::mt19937 random_;
  std::vector<std::shared_ptr<const workload::Image>> pictures_;
  std::vector<std::vector<std::int32_t>> prefixes_;
};

}  // namespace qwenbench::engine::fake
