// What a text step tells the kernels: index arrays in one host block that travels in one copy. For a given shape the
// addresses are the same every time, so that a captured graph finds them filled anew.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_memory.h"
#include "kernels/kv_cache_layout.h"

namespace qwenbench::backend::cuda {

/// The sizes that decide where each array lies.
struct StepShape {
  int tokens = 0, outputs = 0;
  int max_blocks = 0;     // of a block table
  int decode_places = 0;  // 0: as many as the step needs
};

/// Sequences whose attention is computed by one kernel.
struct SequenceGroup {
  kernels::PagedBatch batch{};  // device addresses
  int count = 0;
  int max_kv_length = 0;      // tokens
  std::int64_t total_kv = 0;  // tokens
};

class StepArrays {
 public:
  /// Lays out `input` for `shape`; where the shape has more tokens, outputs or places than the step, the rest is
  /// padding that no kernel acts on. Queues the copy on `stream`. Returns whether the arrays' memory moved.
  bool upload(const StepInput& input, const StepShape& shape, int block_size, cudaStream_t stream);

  // Device addresses.
  const std::int64_t* slots = nullptr;     // [tokens], -1: padding
  const int* ids = nullptr;                // [tokens]
  const int* positions = nullptr;          // [tokens][3]
  const int* output_rows = nullptr;        // [outputs]
  const int* feature_of_token = nullptr;   // [tokens], -1: none
  const int* feature_of_output = nullptr;  // [outputs]
  SequenceGroup decode;                    // with one token in the step; query rows are the step's tokens
  SequenceGroup decode_outputs;            // of these, those whose token is wanted; query rows are the wanted ones
  SequenceGroup prefill;                   // with more tokens
  bool has_visual = false;

 private:
  PinnedArray<std::byte> host_;
  Event copied_;  // the host block may be filled anew
  DeviceArray<std::byte> device_;
};

/// Whether every row is the only one of its sequence and wanted, in the same order, and no picture is in it: what a
/// captured graph can replay.
bool is_plain_decode(const StepInput& input);

}  // namespace qwenbench::backend::cuda
