#include "backend/rope_table.h"

#include <algorithm>
#include <cmath>

namespace qwenbench::backend {
namespace {

/// 1 / theta^(2j / dim), each step in fp32 as the model's authors compute it.
std::vector<float> inverse_frequencies(double theta, int dim) {
  std::vector<float> result(static_cast<std::size_t>(dim / 2));
  for (int j = 0; j < dim / 2; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(dim);
    result[j] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return result;
}

}  // namespace

RopeTable::RopeTable(double theta, int dim) : inverse_frequency_(inverse_frequencies(theta, dim)) {}

void RopeTable::grow(int positions) {
  const std::size_t half = inverse_frequency_.size();
  const std::size_t have = cos_.size() / half;
  if (static_cast<std::size_t>(positions) <= have) return;
  const std::size_t want = std::max<std::size_t>({static_cast<std::size_t>(positions), 2 * have, 256});
  cos_.resize(want * half);
  sin_.resize(want * half);
  for (std::size_t p = have; p < want; ++p) {
    for (std::size_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p) * inverse_frequency_[j];
      cos_[p * half + j] = std::cos(angle);
      sin_[p * half + j] = std::sin(angle);
    }
  }
}

void RopeTable::fill(std::span<const std::array<std::int32_t, 3>> positions, const std::array<int, 3>& section,
                     std::vector<float>& cos, std::vector<float>& sin) {
  const std::size_t half = inverse_frequency_.size();
  int highest = 0;
  for (const auto& p : positions) highest = std::max({highest, p[0], p[1], p[2]});
  grow(highest + 1);
  cos.resize(positions.size() * half);
  sin.resize(positions.size() * half);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    for (std::size_t j = 0; j < half; ++j) {
      const int remainder = static_cast<int>(j % 3);
      const int axis = remainder != 0 && static_cast<int>(j) < 3 * section[remainder] ? remainder : 0;
      const std::size_t from = static_cast<std::size_t>(positions[t][axis]) * half + j;
      cos[t * half + j] = cos_[from];
      sin[t * half + j] = sin_[from];
    }
  }
}

void vision_rope(int grid_h, int grid_w, int merge_size, int head_dim, std::vector<float>& cos,
                 std::vector<float>& sin) {
  const int quarter = head_dim / 4;
  const std::vector<float> frequency = inverse_frequencies(10000.0, head_dim / 2);
  cos.clear();
  sin.clear();
  const auto append = [&](int coordinate) {
    for (int j = 0; j < quarter; ++j) {
      const float angle = static_cast<float>(coordinate) * frequency[j];
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  };
  for (int block_row = 0; block_row < grid_h; block_row += merge_size)
    for (int block_col = 0; block_col < grid_w; block_col += merge_size)
      for (int i = 0; i < merge_size; ++i)
        for (int j = 0; j < merge_size; ++j) {
          append(block_row + i);
          append(block_col + j);
        }
}

}  // namespace qwenbench::backend
