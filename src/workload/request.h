// What the engine is asked to do: token ids, pictures, when it arrives, how to sample.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace qwenbench::workload {

/// A picture as the vision tower takes it: patches in merge-block order, rows (C, T, 16, 16).
struct Image {
  int grid_h = 0, grid_w = 0;       // patches; both multiples of spatial_merge_size (2)
  std::vector<float> pixel_values;  // [grid_h * grid_w, 1536]
  std::string sha256;               // of the grid and the pixel values: the identity for caches

  int num_tokens(int merge_unit = 4) const { return grid_h * grid_w / merge_unit; }
};

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  double top_p = 1;
  int top_k = 0;           // 0: off
  std::uint64_t seed = 0;  // one stream of random numbers a request: independent of the batch
};

struct Request {
  std::string id;
  std::string task;                  // quality datasets: "recall", "image_qa", ...; empty otherwise
  std::vector<std::int32_t> prompt;  // image_pad ids already expanded, num_tokens() of them per picture in order
  std::vector<std::shared_ptr<const Image>> images;
  int max_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_ids;
  SamplingOptions sampling;
  double arrival_s = 0;  // after the start of the trial; 0 in a closed loop

  /// Teacher forcing: not empty = these tokens follow the prompt, whatever the model says, and the positions that
  /// predict forced[score_from...] are scored. Such a request is prefilled through the cache and generates nothing.
  std::vector<std::int32_t> forced;
  int score_from = 0;
};

}  // namespace qwenbench::workload
